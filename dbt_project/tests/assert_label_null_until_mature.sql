{# A label is known exactly when its horizon lies in known days. #}
select
    user_id,
    cutoff_date

from {{ ref('churn_examples') }}

where
    is_label_mature is null
    or is_score_cutoff is null
    or (is_churned is null) = is_label_mature
