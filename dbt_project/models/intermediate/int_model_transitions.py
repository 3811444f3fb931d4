"""The registry's log: who moved which model to which stage."""


def model(dbt, session):
    from churn_udf.warehouse import registry_models

    dbt.config(materialized="table")
    return registry_models.model_transitions(dbt, session)
