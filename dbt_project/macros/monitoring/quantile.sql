{# Quantile of an expression, interpolated, as an aggregate. #}
{% macro quantile(expression, share) -%}
    percentile_cont({{ share }}) within group (order by {{ expression }})
{%- endmacro %}
