{# A list without repeats, each word where it came first. #}
{% macro distinct_words(list) %}
    {{ return(adapter.dispatch('distinct_words', 'churn_scoring')(list)) }}
{% endmacro %}

{% macro duckdb__distinct_words(list) -%}
    list_filter(
        {{ list }},
        lambda word, position: list_position({{ list }}, word) = position
    )
{%- endmacro %}
