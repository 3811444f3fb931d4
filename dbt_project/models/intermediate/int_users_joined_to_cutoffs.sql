{{ config(
    materialized='incremental',
    incremental_strategy='append',
    on_schema_change='sync_all_columns',
    pre_hook="{{ churn_scoring.delete_stale_cutoffs() }}"
) }}

with

stale_cutoffs as (

    {{ churn_scoring.select_stale_cutoffs() }}

),

active_days as (

    select
        user_id,
        active_number,
        event_date

    from {{ ref('int_events_aggregated_to_days') }}

    where is_active = 1

),

{# Population rule: a qualifying event inside the eligibility window. #}
eligible as (

    select
        active_days.user_id,
        stale_cutoffs.cutoff_date,
        stale_cutoffs.input_fingerprint,

        max(active_days.active_number) as last_active_number,
        max(active_days.event_date) as last_active_date

    from active_days

    inner join stale_cutoffs
        on {{ churn_scoring.in_eligibility_window(
            'active_days.event_date', 'stale_cutoffs.cutoff_date'
        ) }}

    group by 1, 2, 3

)

select * from eligible
