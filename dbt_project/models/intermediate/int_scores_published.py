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
    return publish_model.model(dbt, session)
