{#
    Aggregate: the word lists of a group's rows that meet the condition, in the given
    order, as one list; empty when there are none.
#}
{% macro flatten_words(list, order_by, condition) %}
    {{ return(adapter.dispatch('flatten_words', 'churn_scoring')(
        list, order_by, condition
    )) }}
{% endmacro %}

{% macro duckdb__flatten_words(list, order_by, condition) -%}
    coalesce(
        flatten(list({{ list }} order by {{ order_by }}) filter (where {{ condition }})),
        cast([] as varchar[])
    )
{%- endmacro %}
