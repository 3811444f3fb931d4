{{ config(
    materialized='incremental',
    incremental_strategy='append',
    on_schema_change='sync_all_columns',
    pre_hook="{{ churn_scoring.delete_stale_cutoffs() }}"
) }}

{#- How many of the newest gaps make up the recent rhythm. -#}
{%- set recent_gaps = 5 -%}
{%- set gap_days = churn_scoring.get_churn_var('gap_days') -%}
{%- set horizon_days = churn_scoring.get_churn_var('horizon_days') -%}

with

stale_cutoffs as (

    {{ churn_scoring.select_stale_cutoffs() }}

),

population as (

    select
        users.user_id,
        users.cutoff_date,
        users.input_fingerprint,
        users.last_active_number,

        {{ dbt.datediff('users.last_active_date', 'users.cutoff_date', 'day') }}
            as recency_days

    from {{ ref('int_users_joined_to_cutoffs') }} as users

    inner join stale_cutoffs
        on users.cutoff_date = stale_cutoffs.cutoff_date

),

active_days as (

    select
        user_id,
        active_number,
        event_date,
        previous_active_date,

        {{ dbt.datediff('previous_active_date', 'event_date', 'day') }} as gap_days

    from {{ ref('int_events_aggregated_to_days') }}

    where is_active = 1

),

{# Only gaps with both ends inside the observation window are known. #}
observed as (

    select
        population.*,

        active_days.active_number,
        {{ dbt.datediff('active_days.event_date', 'population.cutoff_date', 'day') }}
            as days_before,
        case
            when {{ churn_scoring.in_observation_window(
                'active_days.previous_active_date', 'population.cutoff_date'
            ) }}
                then active_days.gap_days
        end as gap_days

    from population

    inner join active_days
        on
            population.user_id = active_days.user_id
            and {{ churn_scoring.in_observation_window(
                'active_days.event_date', 'population.cutoff_date'
            ) }}

),

windowed as (

    select
        user_id,
        cutoff_date,
        input_fingerprint,
        recency_days,

        max(days_before) as active_tenure_days,
        count(gap_days) as gap_count,
        coalesce(sum(gap_days), 0) as gap_sum,
        coalesce(sum(gap_days * gap_days), 0) as gap_square_sum,
        median(gap_days) as gap_median,
        max(gap_days) as gap_longest,
        max(case when active_number = last_active_number then gap_days end) as gap_last,
        count(
            case
                when active_number > last_active_number - {{ recent_gaps }}
                    then gap_days
            end
        ) as recent_gap_count,
        sum(
            case
                when active_number > last_active_number - {{ recent_gaps }}
                    then gap_days
            end
        ) as recent_gap_sum,
        count(case when gap_days >= recency_days then 1 end) as longer_gap_count,
        {# Of those gaps, the ones that would end inside the horizon from here. #}
        count(
            case
                when
                    gap_days >= recency_days + {{ gap_days }}
                    and gap_days < recency_days + {{ gap_days + horizon_days }}
                    then 1
            end
        ) as horizon_gap_count,
        {# Whole millionths, so that the sum does not depend on row order. #}
        coalesce(sum(cast(round(1000000 * gap_days * ln(gap_days)) as bigint)), 0)
            as gap_entropy_micros

    from observed

    group by 1, 2, 3, 4

),

measured as (

    select
        *,

        {{ churn_scoring.standard_deviation('gap_count', 'gap_sum', 'gap_square_sum') }}
            as gap_std,

        {# Entropy of the gaps and the open one: 0 evenly spread, 1 in one lump. #}
        case
            when gap_count > 0
                then abs(round(
                    1 + (
                        (gap_entropy_micros / 1000000 + recency_days * ln(recency_days))
                        / active_tenure_days - ln(active_tenure_days)
                    ) / ln(gap_count + 1),
                    4
                ))
        end as gap_clumpiness

    from windowed

)

select * from measured
