{# A date so many days later (negative: earlier), still of type date. #}
{% macro shift_date(date_column, days) %}
    {{ return(adapter.dispatch('shift_date', 'churn_scoring')(date_column, days)) }}
{% endmacro %}

{% macro default__shift_date(date_column, days) -%}
    cast({{ dbt.dateadd('day', days, date_column) }} as date)
{%- endmacro %}

{% macro duckdb__shift_date(date_column, days) -%}
    ({{ date_column }} + cast({{ days }} as integer))
{%- endmacro %}
