{#
    What was measured at earlier cutoffs stands nowhere else: a full refresh keeps this
    table.
#}
{{ config(
    materialized='incremental',
    incremental_strategy='delete+insert',
    unique_key=['cutoff_date', 'bundle_id'],
    on_schema_change='append_new_columns',
    full_refresh=false
) }}
-- depends_on: {{ ref('churn_scores') }}
-- depends_on: {{ ref('int_cutoffs_spined') }}
-- depends_on: {{ ref('int_features_windowed_to_cutoffs') }}
-- depends_on: {{ ref('int_visits_serialized_to_text') }}
-- depends_on: {{ ref('int_reviews_windowed_to_cutoffs') }}

{%- set bigint = dbt.type_bigint() %}

with

drift_references as (

    select * from {{ ref('int_drift_references') }}

),

bounds as (

    select first_event_date from {{ ref('int_data_bounds') }}

),

unmeasured as (

    {{ churn_scoring.select_unmeasured_scores() }}

),

{{ churn_scoring.select_value_drift() }},

{{ churn_scoring.select_token_drift() }},

drift as (

    select
        cutoff_date,
        bundle_id,
        subject_type,
        subject,
        population_stability_index,
        kolmogorov_smirnov,
        wasserstein_distance,
        reference_mean,
        reference_standard_deviation,
        reference_spread,
        current_mean,
        reference_count,
        reference_known_count,
        reference_user_count,
        current_count,
        current_known_count,
        bin_count

    from value_drift

    union all

    select
        cutoff_date,
        bundle_id,
        'token' as subject_type,
        subject,
        population_stability_index,
        distance as kolmogorov_smirnov,
        distance as wasserstein_distance,
        reference_mean,
        reference_standard_deviation,
        reference_standard_deviation as reference_spread,
        current_mean,
        reference_count,
        reference_count as reference_known_count,
        reference_user_count,
        current_count,
        current_count as current_known_count,
        2 as bin_count

    from token_drift

),

measured as (

    select
        drift.bundle_id,
        drift.subject_type,
        drift.subject,
        unmeasured.measured_hash,
        drift.population_stability_index,
        drift.kolmogorov_smirnov,
        drift.wasserstein_distance,
        drift.reference_mean,
        drift.reference_standard_deviation,
        drift.reference_spread,
        drift.current_mean,
        cast(drift.reference_count as {{ bigint }}) as reference_count,
        cast(drift.reference_known_count as {{ bigint }}) as reference_known_count,
        cast(drift.reference_user_count as {{ bigint }}) as reference_user_count,
        cast(drift.current_count as {{ bigint }}) as current_count,
        cast(drift.current_known_count as {{ bigint }}) as current_known_count,
        cast(drift.bin_count as integer) as bin_count,
        drift.cutoff_date,
        unmeasured.reference_start_date,
        {# Events that are deleted later shorten no history that the model has seen. #}
        {% if is_incremental() -%}
        least(
            bounds.first_event_date,
            coalesce(known_bundles.history_start_date, bounds.first_event_date)
        ) as history_start_date
        {%- else -%}
        bounds.first_event_date as history_start_date
        {%- endif %}

    from drift

    inner join unmeasured
        on
            drift.cutoff_date = unmeasured.cutoff_date
            and drift.bundle_id = unmeasured.bundle_id

    cross join bounds

    {% if is_incremental() -%}
    left join (

        select
            bundle_id,

            min(history_start_date) as history_start_date

        from {{ this }}

        group by 1

    ) as known_bundles
        on drift.bundle_id = known_bundles.bundle_id
    {%- endif %}

)

select * from measured
