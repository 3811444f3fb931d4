{#
    Fails, where churn__drift_failures is `error`, on every subject of the champion
    whose drift at the score cutoff is an error. By default drift only warns
    (assert_no_drift_warning).
    It waits for the published files, so that scores reach their readers before it
    fails.
#}
-- depends_on: {{ ref('int_scores_published') }}
{{ churn_scoring.select_drifted(
    ['error'] if churn_scoring.get_churn_var('drift_failures') == 'error' else []
) }}
