{{ config(materialized='table') }}

{%- set names = churn_scoring.event_column_names() -%}
{%- set raw_names = [] -%}
{%- for name in names -%}
    {%- do raw_names.append('raw_' ~ name) -%}
{%- endfor -%}
{%- set texts = [
    'user_id', 'order_id', 'item_id', 'item_name', 'category', 'review_text',
] -%}
{%- set numbers = ['amount', 'quantity', 'rating', 'discount_amount'] -%}
{%- set min_event_date = churn_scoring.get_churn_var('min_event_date') -%}
{%- set limits = {
    'amount': churn_scoring.get_churn_var('max_amount'),
    'quantity': churn_scoring.get_churn_var('max_quantity'),
    'rating': 1000,
    'discount_amount': churn_scoring.get_churn_var('max_amount'),
} -%}

with

raw_events as (

    select * from {{ ref('base_churn__events') }}

),

cleaned as (

    select
        {% for name in texts -%}
        {{ churn_scoring.clean_text('raw_' ~ name) }} as {{ name }},
        {% endfor -%}
        lower({{ churn_scoring.clean_text('raw_event_type') }}) as event_type,
        event_ts,

        {# Adding zero makes -0.0 the same as 0.0. #}
        {% for name in numbers -%}
        {{ name }} + 0.0 as {{ name }},
        {% endfor -%}

        {% for name in names -%}
        raw_{{ name }}
        {%- if not loop.last %},
        {% endif -%}
        {% endfor %}

    from raw_events

),

{# The first rule that holds names the reason. #}
ruled as (

    select
        *,

        {{ churn_scoring.hash_row([
            'user_id', 'event_type', 'cast(event_ts as ' ~ dbt.type_string() ~ ')',
            'order_id', 'item_id', 'item_name', 'category', 'review_text',
            'cast(amount as ' ~ dbt.type_string() ~ ')',
            'cast(quantity as ' ~ dbt.type_string() ~ ')',
            'cast(rating as ' ~ dbt.type_string() ~ ')',
            'cast(discount_amount as ' ~ dbt.type_string() ~ ')',
        ]) }} as event_key,
        {{ churn_scoring.quick_hash(raw_names) }} as raw_hash,

        case
            when user_id is null then 'null_user_id'
            when event_type is null then 'null_event_type'
            when {{ churn_scoring.clean_text('raw_event_ts') }} is null
                then 'null_event_ts'
            when event_ts is null then 'unparseable_event_ts'
            when not {{ churn_scoring.is_finite('event_ts') }}
                then 'non_finite_event_ts'
            when event_ts > {{ churn_scoring.current_utc_timestamp() }}
                then 'future_event_ts'
            when event_ts < cast('{{ min_event_date }}' as date)
                then 'event_ts_too_old'
            {% for name in numbers -%}
            when {{ name }} is null
                and {{ churn_scoring.clean_text('raw_' ~ name) }} is not null
                then 'unparseable_{{ name }}'
            when not {{ churn_scoring.is_finite(name) }} then 'non_finite_{{ name }}'
            when abs({{ name }}) > {{ limits[name] }} then 'absurd_{{ name }}'
            {% endfor %}
        end as rule_reason

    from cleaned

),

{# Rows with one key are the same once cleaned; the raw hash makes the choice stable. #}
numbered as (

    select
        *,

        row_number() over (
            partition by event_key, rule_reason
            order by raw_hash
        ) as copy_number

    from ruled

),

reasoned as (

    select
        *,

        coalesce(
            rule_reason,
            case when copy_number > 1 then 'duplicate_event' end
        ) as reject_reason

    from numbered

),

{# Raw text is kept of rejected rows only. #}
final as (

    select
        event_key,
        user_id,
        event_type,
        order_id,
        item_id,
        item_name,
        category,
        review_text,
        reject_reason,

        {% for name in names -%}
        case when reject_reason is not null then raw_{{ name }} end as raw_{{ name }},
        {% endfor -%}

        amount,
        quantity,
        rating,
        discount_amount,

        event_ts

    from reasoned

)

select * from final
