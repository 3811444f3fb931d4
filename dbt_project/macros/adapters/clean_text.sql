{#
    Text without null bytes and without white space of any script at its ends; null when
    nothing is left.
#}
{% macro clean_text(expression) %}
    {{- return(adapter.dispatch('clean_text', 'churn_scoring')(expression)) -}}
{% endmacro %}


{% macro default__clean_text(expression) -%}
    nullif(trim({{ expression }}), '')
{%- endmacro %}


{% macro duckdb__clean_text(expression) -%}
    nullif(trim(
        replace({{ expression }}, chr(0), ''),
        ' ' || chr(9) || chr(10) || chr(11) || chr(12) || chr(13) || chr(133)
        || chr(160) || chr(8203) || chr(8232) || chr(8233) || chr(12288) || chr(65279)
    ), '')
{%- endmacro %}
