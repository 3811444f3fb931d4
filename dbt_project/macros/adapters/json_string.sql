{# A text expression as a quoted JSON string; control characters become blanks. #}
{% macro json_string(expression) %}
    {{- return(adapter.dispatch('json_string', 'churn_scoring')(expression)) -}}
{% endmacro %}


{% macro default__json_string(expression) -%}
    '"' || replace(replace(regexp_replace({{ expression }}, '[[:cntrl:]]', ' '),
        '\\', '\\\\'), '"', '\\"') || '"'
{%- endmacro %}


{% macro duckdb__json_string(expression) -%}
    '"' || replace(replace(regexp_replace({{ expression }}, '[[:cntrl:]]', ' ', 'g'),
        '\', '\\'), '"', '\"') || '"'
{%- endmacro %}
