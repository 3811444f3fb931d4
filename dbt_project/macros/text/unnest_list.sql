{# One row per element of a list, in a select list. #}
{% macro unnest_list(list) %}
    {{ return(adapter.dispatch('unnest_list', 'churn_scoring')(list)) }}
{% endmacro %}

{% macro duckdb__unnest_list(list) -%}
    unnest({{ list }})
{%- endmacro %}
