{# A number that is the same for the same text values; to put rows in a stable order. #}
{% macro quick_hash(expressions) %}
    {{- return(adapter.dispatch('quick_hash', 'churn_scoring')(expressions)) -}}
{% endmacro %}


{% macro default__quick_hash(expressions) -%}
    {{ churn_scoring.hash_row(expressions) }}
{%- endmacro %}


{% macro duckdb__quick_hash(expressions) -%}
    hash({{ expressions | join(', ') }})
{%- endmacro %}


{% macro spark__quick_hash(expressions) -%}
    xxhash64({{ expressions | join(', ') }})
{%- endmacro %}
