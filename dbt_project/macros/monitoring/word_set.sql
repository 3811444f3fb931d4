{# The different words of a text, as a list; the empty word among them. #}
{% macro word_set(text) %}
    {{ return(adapter.dispatch('word_set', 'churn_scoring')(text)) }}
{% endmacro %}

{% macro duckdb__word_set(text) -%}
    list_distinct({{ churn_scoring.split_words(churn_scoring.word_text(text)) }})
{%- endmacro %}
