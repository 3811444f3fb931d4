"""Scores of the inputs at the score cutoff; only what is new or changed is scored."""


def model(dbt, session):
    from churn_udf.warehouse import dbt_model

    dbt.config(materialized="table")
    dbt.ref("churn_examples")
    dbt.ref("int_cutoffs_spined")
    return dbt_model.model(dbt, session)
