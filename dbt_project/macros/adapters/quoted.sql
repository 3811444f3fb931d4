{# A column name in quotes; unlike adapter.quote also when it holds quotes itself. #}
{% macro quoted(name) %}
    {{- return(adapter.dispatch('quoted', 'churn_scoring')(name)) -}}
{% endmacro %}


{% macro default__quoted(name) -%}
    {{ adapter.quote(name | replace('"', '""')) }}
{%- endmacro %}


{% macro spark__quoted(name) -%}
    {{ adapter.quote(name | replace('`', '``')) }}
{%- endmacro %}
