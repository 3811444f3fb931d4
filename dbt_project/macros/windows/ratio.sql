{#
    Numerator over denominator as a double with six decimals; null when either is
    unknown or the denominator is 0, so that no feature is ever NaN or infinite.
#}
{% macro ratio(numerator, denominator, scale=1) -%}
    round(
        cast({{ numerator }} as double)
        / nullif(cast({{ denominator }} as double), 0)
        {%- if scale != 1 %} / {{ scale }}{% endif %},
        6
    )
{%- endmacro %}
