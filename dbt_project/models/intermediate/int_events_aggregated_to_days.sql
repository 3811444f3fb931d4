{%- set roles = churn_scoring.event_roles() -%}

with

events as (

    select
        user_id,
        event_type,
        event_role,
        order_id,
        category,
        event_date,
        event_ts,

        {{ churn_scoring.is_qualifying_event('event_type') }} as is_qualifying,
        event_role = 'purchase' as is_purchase,
        {{ churn_scoring.exact_units('amount') }} as amount_units,
        {{ churn_scoring.exact_units('quantity') }} as quantity_units,
        {{ churn_scoring.exact_units('discount_amount') }} as discount_units,
        {{ churn_scoring.exact_units('rating') }} as rating_units

    from {{ ref('stg_churn__events') }}

),

days as (

    select
        user_id,
        event_date,

        min(case when event_role != 'campaign' then category end) as first_category,
        max(case when event_role != 'campaign' then category end) as last_category,
        max(case when event_role = 'other' then event_type end) as other_event_type,

        {% for role in roles -%}
        count(case when event_role = '{{ role }}' then 1 end) as {{ role }}_event_count,
        {% endfor -%}
        count(case when is_qualifying then 1 end) as qualifying_event_count,
        min(case when is_qualifying then extract(hour from event_ts) end)
            as first_active_hour,

        {# Purchases without an order id count as one order a day. #}
        count(distinct case when is_purchase then coalesce(order_id, '') end)
            as order_count,
        sum(case when is_purchase then amount_units end) as amount_units,
        count(case when is_purchase then amount_units end) as amount_event_count,
        sum(case when is_purchase and amount_units is not null then quantity_units end)
            as priced_quantity_units,
        sum(case when is_purchase then quantity_units end) as quantity_units,
        sum(case when event_role = 'return' then amount_units end)
            as return_amount_units,
        sum(case when is_purchase then discount_units end) as discount_units,
        count(case when is_purchase then discount_units end) as discount_known_count,
        count(case when is_purchase and discount_units > 0 then 1 end)
            as discount_event_count,
        sum(rating_units) as rating_units,
        count(rating_units) as rating_count

    from events

    group by 1, 2

),

flagged as (

    select
        *,

        {# A campaign is something done to a user, no visit. #}
        {% for role in roles if role != 'campaign' -%}
        {{ role }}_event_count {% if not loop.last %}+ {% endif %}
        {%- endfor %}as visit_event_count,

        case when qualifying_event_count > 0 then 1 else 0 end as is_active,
        case when qualifying_event_count > 0 then event_date end as active_date,
        case when amount_event_count > 0 then 1 else 0 end as is_purchase_day,
        {# The remainder of an earlier day is negative. #}
        mod(
            mod(
                {{ dbt.datediff("cast('1970-01-05' as date)", 'event_date', 'day') }},
                7
            ) + 7,
            7
        )
            as weekday_number

    from days

),

{# Numbers and neighbours only order days; readers check them against their window. #}
numbered as (

    select
        *,

        case when visit_event_count > 0 then 1 else 0 end as is_visit,
        sum(case when visit_event_count > 0 then 1 else 0 end) over (
            partition by user_id order by event_date
            rows between unbounded preceding and current row
        ) as visit_number,
        sum(is_active) over (
            partition by user_id order by event_date
            rows between unbounded preceding and current row
        ) as active_number,
        max(active_date) over (
            partition by user_id order by event_date
            rows between unbounded preceding and 1 preceding
        ) as previous_active_date

    from flagged

)

select * from numbered
