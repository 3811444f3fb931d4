{#
    Both scores of a mover stand in churn_scores: the champion's at the score cutoff,
    and that of whoever was champion at the cutoff before.
#}
select movers.user_id

from {{ ref('churn_score_movers') }} as movers

left join {{ ref('churn_scores') }} as scores
    on
        movers.user_id = scores.user_id
        and movers.cutoff_date = scores.cutoff_date
        and movers.bundle_id = scores.bundle_id
        and movers.churn_probability = scores.churn_probability

left join {{ ref('churn_scores') }} as earlier_scores
    on
        movers.user_id = earlier_scores.user_id
        and movers.previous_cutoff_date = earlier_scores.cutoff_date
        and movers.previous_bundle_id = earlier_scores.bundle_id
        and movers.previous_churn_probability = earlier_scores.churn_probability

left join {{ ref('churn_champions') }} as champions
    on
        movers.previous_cutoff_date = champions.cutoff_date
        and movers.previous_bundle_id = champions.bundle_id

where
    scores.user_id is null
    or earlier_scores.user_id is null
    or champions.bundle_id is null
    or movers.previous_cutoff_date >= movers.cutoff_date
    or movers.bundle_id not in (

        select champion_inputs.bundle_id
        from {{ ref('int_inputs_scored') }} as champion_inputs

    )
