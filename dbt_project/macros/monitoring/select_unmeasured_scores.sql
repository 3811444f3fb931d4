{#
    The bundles whose scores at the score cutoff the calling incremental model has not
    measured yet, or measured when cutoff or scores were others. Only bundles that tell what
    they learned from. What was said of earlier cutoffs stays.
#}
{% macro select_unmeasured_scores() %}
    {%- set text = dbt.type_string() %}
    select
        scored.cutoff_date,
        scored.bundle_id,
        scored.measured_hash,
        bundles.row_count as reference_row_count,
        bundles.churned_count as reference_churned_count,
        bundles.first_cutoff_date as reference_start_date

    from (

        select
            scores.cutoff_date,
            scores.bundle_id,

            {{ churn_scoring.hash_row([
                "max(spine.input_fingerprint)",
                "cast(count(*) as " ~ text ~ ")",
                "cast(" ~ churn_scoring.exact_sum('scores.churn_probability')
                ~ " as " ~ text ~ ")",
            ]) }} as measured_hash

        from {{ ref('churn_scores') }} as scores

        inner join {{ ref('int_cutoffs_spined') }} as spine
            on scores.cutoff_date = spine.cutoff_date

        where spine.is_score_cutoff

        group by 1, 2

    ) as scored

    inner join {{ ref('int_drift_references') }} as bundles
        on
            scored.bundle_id = bundles.bundle_id
            and bundles.part = 'bundle'

    {%- if is_incremental() %}

    where not exists (

        select 1
        from {{ this }} as measured
        where
            scored.cutoff_date = measured.cutoff_date
            and scored.bundle_id = measured.bundle_id
            and scored.measured_hash = measured.measured_hash

    )
    {%- endif %}
{% endmacro %}
