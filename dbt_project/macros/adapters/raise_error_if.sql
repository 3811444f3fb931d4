{#
    An expression that is null, or fails the query with `message` where `condition`
    holds. Both are SQL expressions. Use it in `where ... is null`: an unused column is
    dropped by the optimizer, and the check with it.
#}
{% macro raise_error_if(condition, message) %}
    {{- return(
        adapter.dispatch('raise_error_if', 'churn_scoring')(condition, message)
    ) -}}
{% endmacro %}


{% macro default__raise_error_if(condition, message) -%}
    case when {{ condition }} then cast(raise_error({{ message }}) as string) end
{%- endmacro %}


{% macro duckdb__raise_error_if(condition, message) -%}
    case when {{ condition }} then cast(error({{ message }}) as varchar) end
{%- endmacro %}
