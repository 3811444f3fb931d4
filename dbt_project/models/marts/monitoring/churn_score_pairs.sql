with

score_cutoff as (

    select cutoff_date from {{ ref('int_cutoffs_spined') }}
    where is_score_cutoff

),

champion as (

    select distinct bundle_id from {{ ref('int_inputs_scored') }}

),

champions as (

    select
        cutoff_date,
        bundle_id

    from {{ ref('churn_champions') }}

),

scores as (

    select
        user_id,
        bundle_id,
        input_hash,
        risk_tier,
        top_reason,
        churn_probability,
        churn_logit,
        cutoff_date

    from {{ ref('churn_scores') }}

),

scores_now as (

    select scores.*

    from scores

    inner join score_cutoff
        on scores.cutoff_date = score_cutoff.cutoff_date

    inner join champion
        on scores.bundle_id = champion.bundle_id

),

{# What was published of cutoffs before, by whom it was then. #}
earlier_scores as (

    select scores.*

    from scores

    inner join champions
        on
            scores.cutoff_date = champions.cutoff_date
            and scores.bundle_id = champions.bundle_id

    inner join score_cutoff
        on scores.cutoff_date < score_cutoff.cutoff_date

),

scores_before as (

    select * from earlier_scores
    where
        cutoff_date = (

            select max(published.cutoff_date) from earlier_scores as published

        )

),

paired as (

    select
        scores_now.user_id,
        scores_now.bundle_id,
        scores_before.bundle_id as previous_bundle_id,
        scores_now.input_hash,
        scores_before.input_hash as previous_input_hash,
        scores_now.risk_tier,
        scores_before.risk_tier as previous_risk_tier,
        scores_now.top_reason,
        scores_before.top_reason as previous_top_reason,
        scores_now.churn_probability,
        scores_before.churn_probability as previous_churn_probability,
        scores_now.churn_logit,
        scores_now.cutoff_date,
        scores_before.cutoff_date as previous_cutoff_date

    from scores_now

    inner join scores_before
        on scores_now.user_id = scores_before.user_id

)

select * from paired
