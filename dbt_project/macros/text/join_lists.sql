{# Two lists, one after the other. #}
{% macro join_lists(first_list, second_list) %}
    {{ return(adapter.dispatch('join_lists', 'churn_scoring')(first_list, second_list)) }}
{% endmacro %}

{% macro duckdb__join_lists(first_list, second_list) -%}
    list_concat({{ first_list }}, {{ second_list }})
{%- endmacro %}
