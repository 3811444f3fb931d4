{# Each outcome is counted once in the performance of its model, and in one bin. #}
with

outcomes as (

    select
        bundle_id,
        cutoff_date,

        count(*) as user_count,
        count(case when is_churned then 1 end) as churned_count,
        count(case when is_flagged then 1 end) as flagged_count,
        count(case when label_change_count > 0 then 1 end) as changed_label_count

    from {{ ref('churn_score_outcomes') }}

    group by 1, 2

),

performance as (

    select * from {{ ref('churn_model_performance') }}

),

bins as (

    select
        bundle_id,
        cutoff_date,

        sum(user_count) as user_count,
        sum(user_count * observed_rate) as churned_count

    from {{ ref('churn_calibration_bins') }}

    group by 1, 2

),

failures as (

    select
        coalesce(outcomes.bundle_id, performance.bundle_id) as bundle_id,
        coalesce(outcomes.cutoff_date, performance.cutoff_date) as cutoff_date

    from outcomes

    full outer join performance
        on
            outcomes.bundle_id = performance.bundle_id
            and outcomes.cutoff_date = performance.cutoff_date

    left join bins
        on
            performance.bundle_id = bins.bundle_id
            and performance.cutoff_date = bins.cutoff_date

    where
        outcomes.bundle_id is null
        or performance.bundle_id is null
        or bins.bundle_id is null
        or outcomes.user_count <> performance.user_count
        or outcomes.churned_count <> performance.churned_count
        or outcomes.flagged_count <> performance.flagged_count
        or outcomes.changed_label_count <> performance.changed_label_count
        or outcomes.user_count <> bins.user_count
        or abs(outcomes.churned_count - bins.churned_count) > 0.001

)

select * from failures
