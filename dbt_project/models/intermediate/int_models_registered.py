"""Every model of the registry with its stage, training and test."""


def model(dbt, session):
    from churn_udf.warehouse import registry_models

    dbt.config(materialized="table")
    return registry_models.models_registered(dbt, session)
