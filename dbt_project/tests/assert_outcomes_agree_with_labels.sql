{#
    No outcome stands before its horizon has ended, and each says what the label of its
    horizon says now; it was recorded with that value after an even number of changes.
#}
with

outcomes as (

    select * from {{ ref('churn_score_outcomes') }}

),

bounds as (

    select {{ churn_scoring.mature_until_date('data_end_date') }} as mature_until_date
    from {{ ref('int_data_bounds') }}

),

labels as (

    select
        user_id,
        cutoff_date,
        is_churned

    from {{ ref('int_labels_matured') }}

),

failures as (

    select
        outcomes.user_id,
        outcomes.cutoff_date,
        outcomes.bundle_id

    from outcomes

    cross join bounds

    left join labels
        on
            outcomes.user_id = labels.user_id
            and outcomes.cutoff_date = labels.cutoff_date
            and outcomes.horizon_end_date
            = {{ churn_scoring.horizon_end_date('labels.cutoff_date') }}

    where
        outcomes.horizon_end_date > bounds.mature_until_date
        or outcomes.is_churned <> labels.is_churned
        or (labels.user_id is not null and labels.is_churned is null)
        or (outcomes.is_churned = outcomes.first_is_churned)
        <> (mod(outcomes.label_change_count, 2) = 0)
        or (outcomes.label_changed_at is null) <> (outcomes.label_change_count = 0)

)

select * from failures
