{#
    Sum of a column over the newest days before the cutoff; 0 when there are none.
    days_before is 1 on the day right before the cutoff.
#}
{% macro sum_in_last_days(column, days, days_before='days_before') -%}
    coalesce(sum(case when {{ days_before }} <= {{ days }} then {{ column }} end), 0)
{%- endmacro %}
