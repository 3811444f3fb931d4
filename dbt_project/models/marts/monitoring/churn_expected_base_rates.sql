{#
    What was expected at earlier cutoffs stands nowhere else: a full refresh keeps this
    table.
#}
{{ config(
    materialized='incremental',
    incremental_strategy='delete+insert',
    unique_key=['cutoff_date', 'bundle_id'],
    on_schema_change='append_new_columns',
    full_refresh=false
) }}
-- depends_on: {{ ref('int_cutoffs_spined') }}

{%- set band_features = [
    'days_since_active', 'active_day_count_90d', 'tenure_days',
] %}

with

drift_references as (

    select * from {{ ref('int_drift_references') }}

),

unmeasured as (

    {{ churn_scoring.select_unmeasured_scores() }}

),

scores as (

    select
        cutoff_date,
        bundle_id,
        user_id,
        churn_probability

    from {{ ref('churn_scores') }}

),

features as (

    select
        cutoff_date,
        user_id,
        {{ band_features | join(',\n        ') }}

    from {{ ref('int_features_windowed_to_cutoffs') }}

),

scored_users as (

    select
        unmeasured.cutoff_date,
        unmeasured.bundle_id,
        scores.user_id,
        scores.churn_probability,
        {% for name in band_features -%}
        case
            when {{ churn_scoring.is_finite('features.' ~ name) }}
                then features.{{ name }}
        end as {{ name }}{{ ',' if not loop.last }}
        {% endfor %}

    from unmeasured

    inner join scores
        on
            unmeasured.cutoff_date = scores.cutoff_date
            and unmeasured.bundle_id = scores.bundle_id

    left join features
        on
            scores.cutoff_date = features.cutoff_date
            and scores.user_id = features.user_id

),

{# The band of a value is the number of bounds below it, plus one; 0 is unknown. #}
banded_users as (

    select
        scored_users.cutoff_date,
        scored_users.bundle_id,
        scored_users.user_id,
        scored_users.churn_probability,
        {% for name in band_features -%}
        case
            when scored_users.{{ name }} is null then 0
            else 1 + count(
                case
                    when bands.subject = '{{ name }}'
                        and scored_users.{{ name }} > bands.value then 1
                end
            )
        end as {{ name }}_band{{ ',' if not loop.last }}
        {% endfor %}

    from scored_users

    left join drift_references as bands
        on
            scored_users.bundle_id = bands.bundle_id
            and bands.part = 'band'

    group by
        scored_users.cutoff_date,
        scored_users.bundle_id,
        scored_users.user_id,
        scored_users.churn_probability,
        {% for name in band_features -%}
        scored_users.{{ name }}{{ ',' if not loop.last }}
        {% endfor %}

),

stratified_users as (

    select
        cutoff_date,
        bundle_id,
        user_id,
        churn_probability,
        10000 * {{ band_features[0] }}_band + 100 * {{ band_features[1] }}_band
        + {{ band_features[2] }}_band as stratum

    from banded_users

),

reference_rates as (

    select
        bundle_id,
        position as stratum,
        {{ churn_scoring.quotient('churned_count', 'row_count') }} as churn_rate

    from drift_references

    where part = 'stratum'

),

{# Users unlike all that were learned from are expected to churn as all of those did. #}
expected as (

    select
        unmeasured.cutoff_date,
        unmeasured.bundle_id,
        unmeasured.measured_hash,
        unmeasured.reference_row_count,
        unmeasured.reference_churned_count,

        count(*) as user_count,
        count(case when reference_rates.stratum is null then 1 end)
            as unfamiliar_user_count,
        {{ churn_scoring.quotient(
            churn_scoring.exact_sum('stratified_users.churn_probability'), 'count(*)'
        ) }} as expected_base_rate,
        {{ churn_scoring.quotient(
            churn_scoring.exact_sum('coalesce(reference_rates.churn_rate, '
                ~ churn_scoring.quotient(
                    'unmeasured.reference_churned_count',
                    'unmeasured.reference_row_count'
                ) ~ ')'),
            'count(*)'
        ) }} as standardized_base_rate

    from unmeasured

    inner join stratified_users
        on
            unmeasured.cutoff_date = stratified_users.cutoff_date
            and unmeasured.bundle_id = stratified_users.bundle_id

    left join reference_rates
        on
            stratified_users.bundle_id = reference_rates.bundle_id
            and stratified_users.stratum = reference_rates.stratum

    group by 1, 2, 3, 4, 5

),

base_rates as (

    select
        bundle_id,
        measured_hash,
        cast(user_count as {{ dbt.type_bigint() }}) as user_count,
        cast(unfamiliar_user_count as {{ dbt.type_bigint() }}) as unfamiliar_user_count,
        {{ churn_scoring.quotient(
            'reference_churned_count', 'reference_row_count'
        ) }} as reference_base_rate,
        standardized_base_rate,
        expected_base_rate,
        cutoff_date

    from expected

)

select * from base_rates
