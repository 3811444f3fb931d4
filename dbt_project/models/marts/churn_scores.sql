{{ config(
    materialized='incremental',
    incremental_strategy='delete+insert',
    unique_key=['user_id', 'cutoff_date', 'bundle_id'],
    on_schema_change='fail',
    post_hook="{{ churn_scoring.delete_departed_scores() }}"
) }}
-- depends_on: {{ ref('int_cutoffs_spined') }}
-- depends_on: {{ ref('int_inputs_unscorable') }}

with

examples as (

    select * from {{ ref('churn_examples') }}
    where is_score_cutoff and user_id is not null

),

{# The champion's, and beside them those of shadows. #}
scored_inputs as (

    select
        input_hash,
        bundle_id,
        risk_tier,
        top_reason,
        churn_probability,
        churn_logit,
        is_flagged,
        scored_at

    from {{ ref('int_inputs_scored') }}

    union all

    select
        input_hash,
        bundle_id,
        risk_tier,
        top_reason,
        churn_probability,
        churn_logit,
        is_flagged,
        scored_at

    from {{ ref('int_inputs_scored_by_shadows') }}
    where
        bundle_id not in (

            select champion_inputs.bundle_id
            from {{ ref('int_inputs_scored') }} as champion_inputs

        )

),

scores as (

    select
        examples.user_id,
        scored_inputs.bundle_id,
        examples.input_hash,
        scored_inputs.risk_tier,
        scored_inputs.top_reason,
        {{ churn_scoring.why_sentence('scored_inputs.top_reason', 'examples') }} as why,

        scored_inputs.churn_probability,
        scored_inputs.churn_logit,
        scored_inputs.is_flagged,
        examples.cutoff_date,
        scored_inputs.scored_at

    from examples

    inner join scored_inputs
        on examples.input_hash = scored_inputs.input_hash

),

new_scores as (

    select scores.* from scores

    {% if is_incremental() -%}
    left join {{ this }} as written
        on
            scores.user_id = written.user_id
            and scores.cutoff_date = written.cutoff_date
            and scores.bundle_id = written.bundle_id
            and scores.input_hash = written.input_hash
            and scores.scored_at = written.scored_at

    where written.user_id is null
    {%- endif %}

)

select * from new_scores
