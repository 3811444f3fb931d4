{#
    A label whose horizon ends on or before this date is mature: the data end, less the
    days that late events are waited for. The only place where that bound is written.
#}
{% macro mature_until_date(data_end_date) %}
    {{ return(churn_scoring.shift_date(
        data_end_date, -churn_scoring.get_churn_var('late_data_days')
    )) }}
{% endmacro %}
