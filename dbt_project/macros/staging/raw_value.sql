{# One mapped input column as text, or a typed null where the input lacks it. #}
{% macro raw_value(column, is_id=false) -%}
    {%- if column is none or column is undefined -%}
        cast(null as {{ dbt.type_string() }})
    {%- elif is_id -%}
        {{ churn_scoring.id_text(
            churn_scoring.quoted(column['name']), column['family']
        ) }}
    {%- else -%}
        cast({{ churn_scoring.quoted(column['name']) }} as {{ dbt.type_string() }})
    {%- endif -%}
{%- endmacro %}
