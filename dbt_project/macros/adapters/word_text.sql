{# Lower-case words of letters and digits of any script, one blank between them. #}
{% macro word_text(expression) %}
    {{- return(adapter.dispatch('word_text', 'churn_scoring')(expression)) -}}
{% endmacro %}


{% macro default__word_text(expression) -%}
    trim(regexp_replace(lower({{ expression }}), '[^\\p{L}\\p{M}\\p{N}]+', ' '))
{%- endmacro %}


{% macro duckdb__word_text(expression) -%}
    trim(regexp_replace(lower({{ expression }}), '[^\p{L}\p{M}\p{N}]+', ' ', 'g'))
{%- endmacro %}
