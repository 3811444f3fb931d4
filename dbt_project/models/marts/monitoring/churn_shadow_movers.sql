with

pairs as (

    {{ churn_scoring.select_shadow_pairs() }}

),

champions as (

    select
        cutoff_date,
        bundle_id

    from {{ ref('churn_champions') }}

),

published_cutoffs as (

    select scores.cutoff_date

    from {{ ref('churn_scores') }} as scores

    inner join champions
        on
            scores.cutoff_date = champions.cutoff_date
            and scores.bundle_id = champions.bundle_id

),

newest_pairs as (

    select * from pairs
    where
        cutoff_date = (

            select max(published_cutoffs.cutoff_date) from published_cutoffs

        )

),

movers as (

    select
        user_id,
        bundle_id,
        champion_bundle_id,
        risk_tier,
        champion_risk_tier,
        churn_probability,
        champion_churn_probability,
        churn_probability - champion_churn_probability as probability_change,
        cast(row_number() over (
            partition by bundle_id
            order by abs(churn_probability - champion_churn_probability) desc, user_id
        ) as {{ dbt.type_bigint() }}) as change_rank,
        is_flagged,
        is_flagged_by_champion,
        risk_tier <> champion_risk_tier as is_tier_flip,
        is_flagged <> is_flagged_by_champion as is_flag_flip,
        cutoff_date

    from newest_pairs

)

select * from movers
