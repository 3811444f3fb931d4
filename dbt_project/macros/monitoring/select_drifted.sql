{#
    Query for the subjects of the champion at the score cutoff that have one of these
    severities, the worst first, each with a sentence.
#}
{% macro select_drifted(severities) %}
    {%- set text = dbt.type_string() -%}
    select
        drift.severity,
        drift.subject_type,
        drift.subject,
        drift.deciding_metric,
        drift.deciding_value,
        drift.deciding_limit,
        drift.cutoff_date,
        drift.subject_type || ' ' || drift.subject || ': ' || drift.deciding_metric
        || ' is ' || cast(round(drift.deciding_value, 3) as {{ text }})
        || '; fine up to ' || cast(round(drift.deciding_limit, 3) as {{ text }})
        || '; look at where it comes from, then retrain with churn-train run, or allow'
        || ' more in the seed churn_drift_thresholds' as message

    from {{ ref('churn_score_drift') }} as drift

    inner join {{ ref('int_models_registered') }} as champions
        on
            drift.bundle_id = champions.bundle_id
            and champions.is_champion

    inner join {{ ref('int_cutoffs_spined') }} as spine
        on
            drift.cutoff_date = spine.cutoff_date
            and spine.is_score_cutoff

    where
        {% for severity in severities -%}
        drift.severity = '{{ severity }}'{{ ' or ' if not loop.last }}
        {%- else -%}
        1 = 0
        {%- endfor %}

    order by drift.deciding_value / nullif(drift.deciding_limit, 0) desc
{% endmacro %}
