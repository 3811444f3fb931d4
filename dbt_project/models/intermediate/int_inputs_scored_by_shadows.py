"""Scores that models in stage shadow give the inputs at the score cutoff."""


def model(dbt, session):
    from churn_udf.warehouse import shadow_model

    dbt.config(materialized="table")
    dbt.ref("churn_examples")
    dbt.ref("int_cutoffs_spined")
    # The champion scores first; nothing that happens here can harm its scores.
    dbt.ref("int_inputs_scored")
    return shadow_model.model(dbt, session)
