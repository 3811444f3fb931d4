{#
    How far chance alone moves a measure of drift between two samples of the same users: it
    stays below in all but one of a million comparisons. A year of weekly cutoffs makes about
    50,000. `inverse_sizes` is 1 / users now + 1 / users of the reference.
#}
{% macro drift_noise(metric, inverse_sizes, bin_count, relative_spread) %}
    {%- set freedom = "cast(" ~ bin_count ~ " - 1 as "
        ~ churn_scoring.type_double() ~ ")" -%}
    {%- if metric == 'population_stability_index' -%}
    {#- Chi-square of bins - 1, by Wilson and Hilferty; a single bin does not move. -#}
    case
        when {{ bin_count }} < 2 then 0
        else {{ inverse_sizes }} * {{ freedom }} * power(
            1 - 2 / (9 * {{ freedom }}) + 4.7534 * sqrt(2 / (9 * {{ freedom }})), 3
        )
    end
    {%- elif metric == 'kolmogorov_smirnov' -%}
    2.6933 * sqrt({{ inverse_sizes }})
    {%- else -%}
    4.8916 * sqrt({{ inverse_sizes }}) * {{ relative_spread }}
    {%- endif -%}
{%- endmacro %}
