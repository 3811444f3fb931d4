{# Numerator over denominator as a double; null where the denominator is 0 or unknown. #}
{% macro quotient(numerator, denominator) -%}
    cast({{ numerator }} as {{ churn_scoring.type_double() }})
    / nullif(cast({{ denominator }} as {{ churn_scoring.type_double() }}), 0)
{%- endmacro %}
