{#
    The population, counted again straight from the events: who is eligible at which
    cutoff, and how many of them come back inside the horizon.
#}
with

events as (

    select
        user_id,
        event_date

    from {{ ref('stg_churn__events') }}

    where {{ churn_scoring.is_qualifying_event('event_type') }}

),

cutoffs as (

    select cutoff_date from {{ ref('int_cutoffs_spined') }}

),

user_dates as (

    select distinct
        user_id,
        event_date

    from events

),

flagged as (

    select
        cutoffs.cutoff_date,
        user_dates.user_id,
        {{ churn_scoring.in_eligibility_window(
            'user_dates.event_date', 'cutoffs.cutoff_date'
        ) }} as is_eligible_date

    from cutoffs

    inner join user_dates
        on
            {{ churn_scoring.in_eligibility_window(
                'user_dates.event_date', 'cutoffs.cutoff_date'
            ) }}
            or {{ churn_scoring.in_prediction_horizon(
                'user_dates.event_date', 'cutoffs.cutoff_date'
            ) }}

),

counted as (

    select
        cutoff_date,
        user_id,

        count(case when is_eligible_date then 1 end) as eligible_day_count,
        count(case when not is_eligible_date then 1 end) as returned_day_count

    from flagged

    group by 1, 2

),

expected as (

    select
        cutoff_date,
        user_id,
        returned_day_count = 0 as is_churned

    from counted

    where eligible_day_count > 0

),

examples as (

    select
        user_id,
        cutoff_date,
        is_label_mature,
        is_churned

    from {{ ref('churn_examples') }}

),

failures as (

    select
        expected.user_id as expected_user_id,
        examples.user_id

    from expected

    full outer join examples
        on
            expected.cutoff_date = examples.cutoff_date
            and expected.user_id = examples.user_id

    where
        expected.user_id is null
        or examples.user_id is null
        or (examples.is_label_mature and examples.is_churned != expected.is_churned)

)

select * from failures
