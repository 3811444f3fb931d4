{#
    32 hexadecimal digits that stand for a list of text expressions, none of which is
    empty or holds a null byte (see clean_text), so that two
    different rows never read the same.
#}
{% macro hash_row(expressions) %}
    {{- return(adapter.dispatch('hash_row', 'churn_scoring')(expressions)) -}}
{% endmacro %}


{% macro default__hash_row(expressions) -%}
    {%- set parts = [] -%}
    {%- for expression in expressions -%}
        {%- do parts.append("coalesce(" ~ expression ~ ", '')") -%}
    {%- endfor -%}
    {{- dbt.hash(parts | join(" || chr(0)\n    || ")) -}}
{%- endmacro %}
