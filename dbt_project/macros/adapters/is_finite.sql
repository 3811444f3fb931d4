{# True for a number or timestamp that is neither infinite nor NaN; null for null. #}
{% macro is_finite(expression) %}
    {{- return(adapter.dispatch('is_finite', 'churn_scoring')(expression)) -}}
{% endmacro %}


{% macro default__is_finite(expression) -%}
    (cast({{ expression }} as string) not in ('NaN', 'Infinity', '-Infinity'))
{%- endmacro %}


{% macro duckdb__is_finite(expression) -%}
    isfinite({{ expression }})
{%- endmacro %}
