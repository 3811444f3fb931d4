{{ config(
    materialized='incremental',
    incremental_strategy='append',
    on_schema_change='sync_all_columns',
    pre_hook="{{ churn_scoring.delete_stale_cutoffs() }}"
) }}

{#- Sum of these day columns over each of these windows, in days. -#}
{%- set windowed_sums = {
    'is_active': [7, 14, 30, 60, 90, 180, 365],
    'qualifying_event_count': [30, 90],
    'order_count': [90, 365],
    'amount_units': [30, 90, 365],
    'return_event_count': [90, 365],
    'view_event_count': [30, 90],
    'cart_event_count': [30, 90],
    'review_event_count': [365],
    'campaign_event_count': [90, 365],
    'other_event_count': [30, 90],
} -%}

{#- Sum of these day columns over the whole observation window. -#}
{%- set sums = [
    'is_active', 'is_visit', 'visit_event_count', 'purchase_event_count',
    'campaign_event_count', 'return_event_count', 'order_count', 'is_purchase_day',
    'amount_units', 'amount_event_count', 'priced_quantity_units',
    'return_amount_units', 'discount_known_count', 'discount_event_count',
    'rating_units', 'rating_count'
] -%}

with

stale_cutoffs as (

    {{ churn_scoring.select_stale_cutoffs() }}

),

population as (

    select
        users.user_id,
        users.cutoff_date,
        users.input_fingerprint

    from {{ ref('int_users_joined_to_cutoffs') }} as users

    inner join stale_cutoffs
        on users.cutoff_date = stale_cutoffs.cutoff_date

),

days as (

    select
        *,

        case when is_purchase_day = 1 then amount_units end as day_amount_units

    from {{ ref('int_events_aggregated_to_days') }}

),

observed as (

    select
        population.user_id as population_user_id,
        population.cutoff_date,
        population.input_fingerprint,

        days.*,

        {{ dbt.datediff('days.event_date', 'population.cutoff_date', 'day') }}
            as days_before

    from population

    inner join days
        on
            population.user_id = days.user_id
            and {{ churn_scoring.in_observation_window(
                'days.event_date', 'population.cutoff_date'
            ) }}

),

windowed as (

    select
        population_user_id as user_id,
        cutoff_date,
        input_fingerprint,

        min(first_category) as first_category,
        max(last_category) as last_category,

        max(days_before) as tenure_days,
        min(case when is_visit = 1 then days_before end) as visit_recency_days,
        {% for role in ['return', 'campaign'] -%}
        min(case when {{ role }}_event_count > 0 then days_before end)
            as {{ role }}_recency_days,
        {% endfor -%}
        min(case when view_event_count + cart_event_count > 0 then days_before end)
            as view_or_cart_recency_days,

        {% for column, windows in windowed_sums.items() -%}
        {% for days in windows -%}
        {{ churn_scoring.sum_in_last_days(column, days) }} as {{ column }}_{{ days }}d,
        {% endfor -%}
        {% endfor -%}

        {% for column in sums -%}
        coalesce(sum({{ column }}), 0) as {{ column }},
        {% endfor -%}

        {# Unknown, not 0, where no purchase says. #}
        sum(quantity_units) as quantity_units,
        sum(discount_units) as discount_units,

        {% for half_life in [14, 30, 90] -%}
        sum(
            is_active * cast(
                round(
                    1000000 * power(0.5, cast(days_before as double) / {{ half_life }})
                )
                as bigint
            )
        ) as decayed_active_micros_{{ half_life }}d,
        {% endfor -%}

        sum(is_active * days_before) as active_age_days,
        {% for weekday in range(7) -%}
        sum(case when weekday_number = {{ weekday }} then is_active else 0 end)
            as weekday_{{ weekday }}_count,
        {% endfor -%}
        count(case when first_active_hour < 6 then 1 end) as night_count,
        count(case when first_active_hour between 6 and 11 then 1 end) as morning_count,
        count(case when first_active_hour between 12 and 17 then 1 end)
            as afternoon_count,
        count(case when first_active_hour >= 18 then 1 end) as evening_count,

        max(day_amount_units) as max_day_amount_units,
        {# One row per user and day: no ties. #}
        max_by(day_amount_units, case when is_purchase_day = 1 then event_date end)
            as last_day_amount_units,
        coalesce(
            sum(
                {{ churn_scoring.wide_integer('day_amount_units') }} * day_amount_units
            ),
            0
        ) as day_amount_square_units,
        max_by(rating_units, case when rating_count > 0 then event_date end)
            as last_rating_units,
        max_by(rating_count, case when rating_count > 0 then event_date end)
            as last_rating_count,

        max(case when is_visit = 1 then visit_number end) as newest_visit_number

    from observed

    group by 1, 2, 3

),

measured as (

    select
        *,

        greatest(
            {% for weekday in range(7) -%}
            weekday_{{ weekday }}_count
            {%- if not loop.last %},
            {% endif -%}
            {% endfor %}
        ) as top_weekday_count,
        {{ churn_scoring.standard_deviation(
            'is_purchase_day', 'amount_units', 'day_amount_square_units', 10000
        ) }} as purchase_day_amount_std

    from windowed

)

select * from measured
