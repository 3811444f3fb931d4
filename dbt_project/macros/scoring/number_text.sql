{# A number as text without decimals, 100 % of 0.5 with `scale` 100; null where unknown. #}
{% macro number_text(number, scale=1) -%}
    cast(cast(round({{ scale }} * {{ number }}) as bigint) as {{ dbt.type_string() }})
{%- endmacro %}
