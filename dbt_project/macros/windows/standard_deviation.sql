{#
    Sample standard deviation from exact whole-number sums (count, sum, sum of
    squares); null below two values. Exact until the final division and root.
#}
{% macro standard_deviation(value_count, value_sum, square_sum, scale=1) -%}
    case
        when {{ value_count }} >= 2
            then round(
                sqrt(
                    cast(
                        {{ churn_scoring.wide_integer(value_count) }} * {{ square_sum }}
                        - {{ churn_scoring.wide_integer(value_sum) }} * {{ value_sum }}
                        as double
                    )
                    / cast({{ value_count }} as double)
                    / cast({{ value_count }} - 1 as double)
                ) / {{ scale }},
                6
            )
    end
{%- endmacro %}
