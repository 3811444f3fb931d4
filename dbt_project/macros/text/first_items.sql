{# The first so many elements of a list, as a list. #}
{% macro first_items(list, item_count) %}
    {{ return(adapter.dispatch('first_items', 'churn_scoring')(list, item_count)) }}
{% endmacro %}

{% macro duckdb__first_items(list, item_count) -%}
    ({{ list }})[1:{{ item_count }}]
{%- endmacro %}
