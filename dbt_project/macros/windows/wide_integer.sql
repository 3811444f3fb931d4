{# A whole number wide enough for sums of squares. #}
{% macro wide_integer(expression) %}
    {{ return(adapter.dispatch('wide_integer', 'churn_scoring')(expression)) }}
{% endmacro %}

{% macro default__wide_integer(expression) -%}
    cast({{ expression }} as decimal(38, 0))
{%- endmacro %}

{% macro duckdb__wide_integer(expression) -%}
    cast({{ expression }} as hugeint)
{%- endmacro %}
