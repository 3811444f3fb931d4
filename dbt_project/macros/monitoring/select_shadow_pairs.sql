{#
    Query for the scores of each shadow beside those of the champion it scored with: users
    whose same input at the same cutoff both have scored.
#}
{% macro select_shadow_pairs() %}
    select
        shadow_scores.user_id,
        shadows.bundle_id,
        shadows.champion_bundle_id,
        shadow_scores.risk_tier,
        champion_scores.risk_tier as champion_risk_tier,
        shadow_scores.churn_probability,
        champion_scores.churn_probability as champion_churn_probability,
        shadow_scores.is_flagged,
        champion_scores.is_flagged as is_flagged_by_champion,
        shadows.cutoff_date

    from {{ ref('int_shadows_noted') }} as shadows

    inner join {{ ref('churn_scores') }} as shadow_scores
        on
            shadows.cutoff_date = shadow_scores.cutoff_date
            and shadows.bundle_id = shadow_scores.bundle_id

    inner join {{ ref('churn_scores') }} as champion_scores
        on
            shadows.cutoff_date = champion_scores.cutoff_date
            and shadows.champion_bundle_id = champion_scores.bundle_id
            and shadow_scores.user_id = champion_scores.user_id
            and shadow_scores.input_hash = champion_scores.input_hash
{% endmacro %}
