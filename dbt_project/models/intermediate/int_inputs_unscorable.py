"""Inputs at the score cutoff that could not be scored, with the reason."""


def model(dbt, session):
    from churn_udf.warehouse import dbt_model

    dbt.config(materialized="table")
    dbt.ref("churn_examples")
    dbt.ref("int_cutoffs_spined")
    dbt.ref("int_inputs_scored")
    return dbt_model.unscorable_model(dbt, session)
