{#
    The three effects add up to the change, and the main cause is the largest of them;
    or all are unknown, with a reason.
#}
with

movers as (

    select * from {{ ref('churn_score_movers') }}

),

failures as (

    select user_id from movers
    where
        abs(
            probability_change - (churn_probability - previous_churn_probability)
        ) > 1e-12
        or abs(
            behaviour_effect + model_effect + calibration_effect - probability_change
        ) > 1e-12
        or case main_cause
            when 'behaviour' then abs(behaviour_effect)
            when 'model' then abs(model_effect)
            when 'calibration' then abs(calibration_effect)
        end < greatest(
            abs(behaviour_effect), abs(model_effect), abs(calibration_effect)
        )
        or (unsplit_reason is null) <> (behaviour_effect is not null)
        or (unsplit_reason is null) <> (model_effect is not null)
        or (unsplit_reason is null) <> (calibration_effect is not null)
        or (unsplit_reason is null) <> (main_cause is not null)

)

select * from failures
