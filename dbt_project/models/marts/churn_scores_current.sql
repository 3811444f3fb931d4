with

champion as (

    select distinct bundle_id from {{ ref('int_inputs_scored') }}

),

scores as (

    select * from {{ ref('churn_scores') }}

),

ranked as (

    select
        scores.*,
        row_number() over (
            partition by scores.user_id
            order by scores.cutoff_date desc
        ) as newness

    from scores

    inner join champion
        on scores.bundle_id = champion.bundle_id

),

newest as (

    select
        user_id,
        bundle_id,
        input_hash,
        risk_tier,
        top_reason,
        why,
        churn_probability,
        churn_logit,
        is_flagged,
        cutoff_date,
        scored_at

    from ranked

    where newness = 1

)

select * from newest
