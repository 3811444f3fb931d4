{%- set overrides = churn_scoring.get_churn_var('event_type_roles') -%}

with

checked_events as (

    select * from {{ ref('stg_churn__events_checked') }}

    where reject_reason is null

),

seed_roles as (

    select
        event_type,
        event_role

    from {{ ref('event_type_roles') }}

),

roled as (

    select
        checked_events.*,

        {% if overrides -%}
        case checked_events.event_type
            {% for event_type, event_role in overrides.items() -%}
            when {{ dbt.string_literal(dbt.escape_single_quotes(event_type)) }}
                then '{{ event_role }}'
            {% endfor -%}
            else coalesce(seed_roles.event_role, 'other')
        end as mapped_role
        {%- else -%}
        coalesce(seed_roles.event_role, 'other') as mapped_role
        {%- endif %}

    from checked_events

    left join seed_roles
        on checked_events.event_type = seed_roles.event_type

),

{# A purchase that gives goods or money back is a return, whatever it is called. #}
split as (

    select
        *,

        mapped_role = 'purchase'
        and (coalesce(quantity, 0) < 0 or coalesce(amount, 0) < 0)
            as is_negative_purchase

    from roled

),

final as (

    select
        event_key,
        user_id,
        case when is_negative_purchase then 'return' else event_type end as event_type,
        case when is_negative_purchase then 'return' else mapped_role end as event_role,
        order_id,
        item_id,
        item_name,
        category,
        review_text,

        case
            when is_negative_purchase or mapped_role = 'return' then abs(amount)
            else amount
        end as amount,
        case
            when is_negative_purchase or mapped_role = 'return' then abs(quantity)
            else quantity
        end as quantity,
        rating,
        discount_amount,

        cast(event_ts as date) as event_date,
        event_ts

    from split

)

select * from final
