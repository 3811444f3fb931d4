{# Every score whose label has matured has an outcome with the same probability. #}
select
    scores.user_id,
    scores.cutoff_date,
    scores.bundle_id

from {{ ref('churn_scores') }} as scores

inner join {{ ref('int_labels_matured') }} as labels
    on
        scores.user_id = labels.user_id
        and scores.cutoff_date = labels.cutoff_date

left join {{ ref('churn_score_outcomes') }} as outcomes
    on
        scores.user_id = outcomes.user_id
        and scores.cutoff_date = outcomes.cutoff_date
        and scores.bundle_id = outcomes.bundle_id

where
    labels.is_label_mature
    and (
        outcomes.user_id is null
        or (
            outcomes.horizon_end_date
            = {{ churn_scoring.horizon_end_date('scores.cutoff_date') }}
            and outcomes.churn_probability <> scores.churn_probability
        )
    )
