{#
    Picks and casts the columns of whatever the vars name, so that everything after it
    sees one shape. A value that cannot be cast is null beside its text.
#}
{%- set relation = churn_scoring.raw_relation('events') -%}
{%- set columns = churn_scoring.raw_columns('events', relation) -%}
{%- set ids = ['user_id', 'order_id', 'item_id'] -%}
{%- set numbers = ['amount', 'quantity', 'rating', 'discount_amount'] -%}

with

{% if relation is not none -%}
raw_events as (

    select * from {{ relation }}

),

{% endif -%}
mapped as (

    select
        {% for name in churn_scoring.event_column_names() -%}
        {{ churn_scoring.raw_value(columns.get(name), name in ids) }} as raw_{{ name }},
        {% endfor -%}

        {% for name in numbers -%}
        {{ churn_scoring.raw_number(columns.get(name)) }} as {{ name }},
        {% endfor -%}

        {% if columns.get('event_ts') -%}
        {{ churn_scoring.to_utc_timestamp(
            churn_scoring.quoted(columns['event_ts']['name']),
            columns['event_ts']['family']
        ) }} as event_ts
        {%- else -%}
        cast(null as timestamp) as event_ts
        {%- endif %}

    {% if relation is not none -%}
    from raw_events
    {%- else -%}
    where false
    {%- endif %}

)

select * from mapped
