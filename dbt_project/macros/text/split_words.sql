{# A text's words at single blanks, as a list. #}
{% macro split_words(text) %}
    {{ return(adapter.dispatch('split_words', 'churn_scoring')(text)) }}
{% endmacro %}

{% macro duckdb__split_words(text) -%}
    string_split({{ text }}, ' ')
{%- endmacro %}
