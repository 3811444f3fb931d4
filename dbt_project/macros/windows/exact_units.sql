{#
    A measured value as a whole number of 1/10,000. Sums of whole numbers do not depend
    on the order in which rows or threads arrive; sums of doubles do.
#}
{% macro exact_units(column) -%}
    cast(round({{ column }} * 10000) as bigint)
{%- endmacro %}
