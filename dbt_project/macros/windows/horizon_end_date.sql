{#
    First date after the prediction horizon. A label is mature once this is on or
    before mature_until_date.
#}
{% macro horizon_end_date(cutoff_date) %}
    {{ return(churn_scoring.shift_date(
        cutoff_date,
        churn_scoring.get_churn_var('gap_days')
        + churn_scoring.get_churn_var('horizon_days')
    )) }}
{% endmacro %}
