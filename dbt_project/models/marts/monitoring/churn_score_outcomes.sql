{#
    When a label matured and how it changed since stands nowhere else: a full refresh
    keeps this table.
#}
{{ config(
    materialized='incremental',
    incremental_strategy='delete+insert',
    unique_key=['user_id', 'cutoff_date', 'bundle_id'],
    on_schema_change='append_new_columns',
    full_refresh=false,
    post_hook="{{ churn_scoring.delete_departed_outcomes() }}"
) }}
-- depends_on: {{ ref('int_cutoffs_spined') }}
-- depends_on: {{ ref('int_data_bounds') }}
-- depends_on: {{ ref('int_events_aggregated_to_days') }}
-- depends_on: {{ ref('churn_unscorable') }}

{%- set score_columns = [
    'user_id', 'bundle_id', 'risk_tier', 'churn_probability', 'is_flagged',
    'cutoff_date', 'scored_at',
] %}

with

scores as (

    select
        {{ score_columns | join(',\n        ') }}

    from {{ ref('churn_scores') }}

),

labels as (

    select
        user_id,
        cutoff_date,
        is_churned

    from {{ ref('int_labels_matured') }}

    where is_label_mature

),

trained_models as (

    select
        bundle_id,
        trained_until_date

    from {{ ref('int_models_registered') }}

),

{% if is_incremental() -%}
{#
    A score that a full refresh of churn_scores took away lives on here, and so does its
    label.
#}
known_scores as (

    select
        {% for name in score_columns -%}
        coalesce(scores.{{ name }}, recorded.{{ name }}) as {{ name }},
        {% endfor -%}
        recorded.risk_tier as recorded_risk_tier,
        recorded.churn_probability as recorded_probability,
        recorded.is_flagged as recorded_is_flagged,
        recorded.scored_at as recorded_scored_at,
        recorded.label_change_count,
        recorded.is_churned as recorded_is_churned,
        recorded.first_is_churned,
        recorded.is_out_of_time as recorded_is_out_of_time,
        recorded.horizon_end_date as recorded_horizon_end_date,
        recorded.recorded_at,
        recorded.label_changed_at

    from scores

    full outer join {{ this }} as recorded
        on
            scores.user_id = recorded.user_id
            and scores.cutoff_date = recorded.cutoff_date
            and scores.bundle_id = recorded.bundle_id

),
{%- else -%}
known_scores as (

    select * from scores

),
{%- endif %}

judged as (

    select
        known_scores.*,
        labels.is_churned,
        trained_models.trained_until_date <= known_scores.cutoff_date
            as known_is_out_of_time,
        {{ churn_scoring.horizon_end_date('known_scores.cutoff_date') }}
            as horizon_end_date

    from known_scores

    inner join labels
        on
            known_scores.user_id = labels.user_id
            and known_scores.cutoff_date = labels.cutoff_date

    left join trained_models
        on known_scores.bundle_id = trained_models.bundle_id

),

outcomes as (

    select
        user_id,
        bundle_id,
        risk_tier,
        churn_probability,
        {% if is_incremental() -%}
        cast(
            coalesce(label_change_count, 0)
            + case when is_churned <> recorded_is_churned then 1 else 0 end as integer
        ) as label_change_count,
        is_flagged,
        is_churned,
        coalesce(first_is_churned, is_churned) as first_is_churned,
        {# What was known of a model outlives its bundle. #}
        coalesce(known_is_out_of_time, recorded_is_out_of_time) as is_out_of_time,
        cutoff_date,
        horizon_end_date,
        scored_at,
        coalesce(recorded_at, {{ churn_scoring.current_utc_timestamp() }})
            as recorded_at,
        case
            when is_churned <> recorded_is_churned
                then {{ churn_scoring.current_utc_timestamp() }}
            else label_changed_at
        end as label_changed_at
        {%- else -%}
        cast(0 as integer) as label_change_count,
        is_flagged,
        is_churned,
        is_churned as first_is_churned,
        known_is_out_of_time as is_out_of_time,
        cutoff_date,
        horizon_end_date,
        scored_at,
        {{ churn_scoring.current_utc_timestamp() }} as recorded_at,
        cast(null as {{ dbt.type_timestamp() }}) as label_changed_at
        {%- endif %}

    from judged

    {%- if is_incremental() %}

    {# A label of another horizon is another question: what was answered stays. #}
    where
        recorded_at is null
        or (
            horizon_end_date = recorded_horizon_end_date
            and (
                is_churned <> recorded_is_churned
                or risk_tier <> recorded_risk_tier
                or churn_probability <> recorded_probability
                or is_flagged <> recorded_is_flagged
                or scored_at <> recorded_scored_at
                or known_is_out_of_time <> recorded_is_out_of_time
                or (
                    known_is_out_of_time is not null
                    and recorded_is_out_of_time is null
                )
            )
        )
    {%- endif %}

)

select * from outcomes
