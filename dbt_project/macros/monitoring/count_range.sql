{#
    The lowest and the highest count that are not off by both `spreads` of square roots and a
    share of the centre: significant, and of a size that matters. As columns.
#}
{% macro count_range(centre, spread, limits, low_name, high_name) -%}
    {%- set count = 'power(' ~ centre ~ ', 2) - 0.375' -%}
    cast(ceil(round(least(
        power(
            greatest({{ centre }} - {{ limits['low']['spreads'] }} * {{ spread }}, 0), 2
        ) - 0.375,
        {{ limits['low']['share'] }} * ({{ count }})
    ), 6)) as {{ dbt.type_bigint() }}) as {{ low_name }},
    cast(floor(round(greatest(
        power({{ centre }} + {{ limits['high']['spreads'] }} * {{ spread }}, 2) - 0.375,
        {{ limits['high']['share'] }} * ({{ count }})
    ), 6)) as {{ dbt.type_bigint() }}) as {{ high_name }}
{%- endmacro %}
