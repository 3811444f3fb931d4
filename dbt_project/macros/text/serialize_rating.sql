{# A rating in 1/10,000 as text, half up to one decimal of its size: "4", "4.5", "-1". #}
{% macro serialize_rating(rating_units) %}
    {{ return(adapter.dispatch('serialize_rating', 'churn_scoring')(rating_units)) }}
{% endmacro %}

{% macro duckdb__serialize_rating(rating_units) -%}
    {#- Whole tenths first, so that no double is ever printed. -#}
    {%- set tenths = '((abs(' ~ rating_units ~ ') + 500) // 1000)' -%}
    case when {{ rating_units }} <= -500 then '-' else '' end
    || cast({{ tenths }} // 10 as varchar)
    || case
        when {{ tenths }} % 10 = 0 then ''
        else '.' || cast({{ tenths }} % 10 as varchar)
    end
{%- endmacro %}
