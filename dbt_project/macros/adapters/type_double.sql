{# The 64-bit floating type. dbt.type_float() is only 32 bits wide on DuckDB. #}
{% macro type_double() %}
    {{- return(adapter.dispatch('type_double', 'churn_scoring')()) -}}
{% endmacro %}


{% macro default__type_double() -%}
    double
{%- endmacro %}


{% macro postgres__type_double() -%}
    double precision
{%- endmacro %}
