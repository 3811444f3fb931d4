{#
    Inside [cutoff + gap_days, cutoff + gap_days + horizon_days): the only place where
    the label's bounds are written.
#}
{% macro in_prediction_horizon(event_date, cutoff_date) %}
    {{ return(adapter.dispatch('in_prediction_horizon', 'churn_scoring')(
        event_date, cutoff_date
    )) }}
{% endmacro %}

{% macro default__in_prediction_horizon(event_date, cutoff_date) -%}
    {%- set gap_days = churn_scoring.get_churn_var('gap_days') -%}
    ({{ event_date }} >= {{ churn_scoring.shift_date(cutoff_date, gap_days) }}
        and {{ event_date }} < {{ churn_scoring.horizon_end_date(cutoff_date) }})
{%- endmacro %}
