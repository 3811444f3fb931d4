{#
    32 hexadecimal digits that stand for a list of text expressions. Each value carries
    its length, so that no two different rows read the same.
#}
{% macro hash_row(expressions) %}
    {%- set parts = [] -%}
    {%- for expression in expressions -%}
        {%- do parts.append(
            "coalesce(cast(length(" ~ expression ~ ") as " ~ dbt.type_string() ~ ") || ':' || "
            ~ expression ~ ", '-')"
        ) -%}
    {%- endfor -%}
    {{- return(dbt.hash(parts | join('\n    || '))) -}}
{% endmacro %}
