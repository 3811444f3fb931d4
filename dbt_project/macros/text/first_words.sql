{# The first so many words of a list as text with a blank before each; '' for none. #}
{% macro first_words(list, word_count) %}
    {{ return(adapter.dispatch('first_words', 'churn_scoring')(list, word_count)) }}
{% endmacro %}

{% macro duckdb__first_words(list, word_count) -%}
    coalesce(
        ' ' || nullif(array_to_string(({{ list }})[1:{{ word_count }}], ' '), ''), ''
    )
{%- endmacro %}
