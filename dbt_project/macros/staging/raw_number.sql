{# One mapped input column as a double; null where it is missing or not a number. #}
{% macro raw_number(column) -%}
    {%- if column is none or column is undefined -%}
        cast(null as {{ churn_scoring.type_double() }})
    {%- elif column['family'] == 'text' -%}
        {{ churn_scoring.try_cast(
            churn_scoring.clean_text(churn_scoring.quoted(column['name'])),
            churn_scoring.type_double()
        ) }}
    {%- else -%}
        cast({{ churn_scoring.quoted(column['name']) }}
            as {{ churn_scoring.type_double() }})
    {%- endif -%}
{%- endmacro %}
