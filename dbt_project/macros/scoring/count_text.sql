{# A number of things as text, "1 day" or "12 days"; null where the number is. #}
{% macro count_text(number, noun) -%}
    case
        when round({{ number }}) = 1 then '1 {{ noun }}'
        else cast(cast(round({{ number }}) as bigint) as {{ dbt.type_string() }})
            || ' {{ noun }}s'
    end
{%- endmacro %}
