"""What the champion of the cutoff before says of the inputs at the score cutoff."""


def model(dbt, session):
    from churn_udf.warehouse import attribution_model

    dbt.config(materialized="table")
    dbt.ref("churn_examples")
    dbt.ref("int_cutoffs_spined")
    dbt.ref("churn_score_pairs")
    return attribution_model.model(dbt, session)
