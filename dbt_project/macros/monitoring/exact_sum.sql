{#
    Sum of doubles as a double, added up as decimals of 18 places: exact, so that it does not
    depend on the order in which rows or threads arrive. Values up to 10 billion.
#}
{% macro exact_sum(expression) -%}
    cast(sum(cast({{ expression }} as decimal(28, 18)))
        as {{ churn_scoring.type_double() }})
{%- endmacro %}
