{#
    What one bin adds to the population stability index, (p - q) ln(p / q), where p and q are
    shares of current and of reference rows. Half a row is added to each bin, so that an
    empty one has a share, too.
#}
{% macro smoothed_psi_term(current, current_total, reference, reference_total, bins) -%}
    {%- set p = churn_scoring.quotient(
        '(' ~ current ~ ' + 0.5)', '(' ~ current_total ~ ' + 0.5 * ' ~ bins ~ ')'
    ) -%}
    {%- set q = churn_scoring.quotient(
        '(' ~ reference ~ ' + 0.5)', '(' ~ reference_total ~ ' + 0.5 * ' ~ bins ~ ')'
    ) -%}
    (({{ p }}) - ({{ q }})) * ln(({{ p }}) / ({{ q }}))
{%- endmacro %}
