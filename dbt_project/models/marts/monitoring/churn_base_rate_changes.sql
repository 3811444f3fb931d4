{#
    The change of a base rate, split in two (Kitagawa 1955): what the mix of users
    explains at the churn rates of the reference, and what changed inside the strata.
#}
with

expected as (

    select
        bundle_id,
        user_count,
        unfamiliar_user_count,
        reference_base_rate,
        standardized_base_rate,
        expected_base_rate,
        cutoff_date

    from {{ ref('churn_expected_base_rates') }}

),

performance as (

    select
        bundle_id,
        cutoff_date,
        base_rate

    from {{ ref('churn_model_performance') }}

),

changes as (

    select
        expected.bundle_id,
        expected.user_count,
        expected.unfamiliar_user_count,
        expected.reference_base_rate,
        expected.expected_base_rate,
        performance.base_rate as observed_base_rate,
        expected.standardized_base_rate - expected.reference_base_rate
            as explained_change,
        performance.base_rate - expected.standardized_base_rate as unexplained_change,
        expected.cutoff_date

    from expected

    left join performance
        on
            expected.bundle_id = performance.bundle_id
            and expected.cutoff_date = performance.cutoff_date

)

select * from changes
