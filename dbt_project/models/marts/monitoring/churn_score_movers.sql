{#
    change = what the same model says of other behaviour, plus what another model says
    of the same, plus what another calibrator makes of it. Equal inputs, models and
    calibrators give equal probabilities, to the last digit.
#}
with

paired as (

    select * from {{ ref('churn_score_pairs') }}

),

attributed as (

    select
        input_hash,
        bundle_id,
        previous_bundle_id,
        unsplit_reason,
        previous_model_probability,
        previous_calibrator_probability,
        is_same_model,
        is_same_calibrator

    from {{ ref('int_scores_attributed') }}

),

{# The input of now, scored by the model and the calibrator before. #}
by_previous_model as (

    select
        paired.*,
        attributed.unsplit_reason,
        attributed.previous_calibrator_probability,
        paired.bundle_id = paired.previous_bundle_id
        or coalesce(attributed.is_same_model, false) as is_same_model,
        paired.bundle_id = paired.previous_bundle_id
        or coalesce(attributed.is_same_calibrator, false) as is_same_calibrator,
        case
            when
                paired.bundle_id = paired.previous_bundle_id
                or (attributed.is_same_model and attributed.is_same_calibrator)
                then paired.churn_probability
            when attributed.previous_model_probability is null then null
            when paired.input_hash = paired.previous_input_hash
                then paired.previous_churn_probability
            else attributed.previous_model_probability
        end as previous_model_probability

    from paired

    left join attributed
        on
            paired.input_hash = attributed.input_hash
            and paired.bundle_id = attributed.bundle_id
            and paired.previous_bundle_id = attributed.previous_bundle_id

),

{# The input of now, scored by the model of now and the calibrator before. #}
by_previous_calibrator as (

    select
        by_previous_model.*,
        case
            when by_previous_model.previous_model_probability is null then null
            when by_previous_model.is_same_calibrator
                then by_previous_model.churn_probability
            when by_previous_model.is_same_model
                then by_previous_model.previous_model_probability
            else by_previous_model.previous_calibrator_probability
        end as calibrated_before

    from by_previous_model

),

split as (

    select
        steps.*,
        steps.churn_probability - steps.previous_churn_probability
            as probability_change,
        steps.previous_model_probability - steps.previous_churn_probability
            as behaviour_effect,
        steps.calibrated_before - steps.previous_model_probability as model_effect,
        steps.churn_probability - steps.calibrated_before as calibration_effect

    from by_previous_calibrator as steps

),

movers as (

    select
        user_id,
        bundle_id,
        previous_bundle_id,
        case
            when behaviour_effect is null then null
            when
                abs(behaviour_effect) >= abs(model_effect)
                and abs(behaviour_effect) >= abs(calibration_effect)
                then 'behaviour'
            when abs(model_effect) >= abs(calibration_effect) then 'model'
            else 'calibration'
        end as main_cause,
        case
            when behaviour_effect is null
                then coalesce(unsplit_reason, 'not_attributed')
        end as unsplit_reason,
        risk_tier,
        previous_risk_tier,
        top_reason,
        previous_top_reason,
        churn_probability,
        previous_churn_probability,
        probability_change,
        behaviour_effect,
        model_effect,
        calibration_effect,
        cast(row_number() over (
            order by abs(probability_change) desc, user_id
        ) as {{ dbt.type_bigint() }}) as change_rank,
        cutoff_date,
        previous_cutoff_date

    from split

)

select * from movers
