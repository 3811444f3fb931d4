"""What the champion and the shadows learned from, as their bundles tell it."""


def model(dbt, session):
    from churn_udf.warehouse import drift_models

    dbt.config(materialized="table")
    return drift_models.drift_references(dbt, session)
