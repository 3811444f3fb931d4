"""The score marts as Parquet files, readable while the next run writes."""


def model(dbt, session):
    from churn_udf.warehouse import publish_model

    dbt.config(materialized="table")
    # What is published: the marts that stand here.
    dbt.ref("churn_scores")
    dbt.ref("churn_scores_current")
    dbt.ref("churn_unscorable")
    dbt.ref("churn_score_outcomes")
    dbt.ref("churn_calibration_bins")
    dbt.ref("churn_model_performance")
    dbt.ref("churn_models")
    dbt.ref("churn_model_log")
    dbt.ref("churn_champions")
    dbt.ref("churn_score_drift")
    dbt.ref("churn_base_rate_changes")
    dbt.ref("churn_score_movers")
    dbt.ref("churn_shadow_comparisons")
    dbt.ref("churn_shadow_movers")
    dbt.ref("churn_event_volumes")
    return publish_model.model(dbt, session)
