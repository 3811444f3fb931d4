{#
    An identifier as text. A whole number reads the same whether a file holds it as an
    integer or, after a detour through pandas, as 17850.0.
#}
{% macro id_text(expression, family) -%}
    {%- if family == 'float' -%}
        case
            when {{ expression }} = floor({{ expression }})
                and abs({{ expression }}) < 1e15
                then cast({{ churn_scoring.try_cast(expression, dbt.type_bigint()) }}
                    as {{ dbt.type_string() }})
            when {{ churn_scoring.is_finite(expression) }}
                then cast({{ expression }} as {{ dbt.type_string() }})
        end
    {%- else -%}
        cast({{ expression }} as {{ dbt.type_string() }})
    {%- endif -%}
{%- endmacro %}
