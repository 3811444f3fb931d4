{#
    One profile value as short text: numbers to three significant digits, so that people
    alike read alike; other text cut at 60 characters. Null when there is none.
#}
{% macro profile_value(column) -%}
    {%- set expression = churn_scoring.quoted(column['name']) -%}
    {%- if column['family'] in ('number', 'float') -%}
        {%- set number =
            'cast(' ~ expression ~ ' as ' ~ churn_scoring.type_double() ~ ')' -%}
        case
            when not {{ churn_scoring.is_finite(number) }} then null
            when {{ number }} = 0 then '0'
            else {{ churn_scoring.id_text(
                'round(' ~ number ~ ', 2 - cast(floor(log10(abs(' ~ number
                ~ '))) as integer))', 'float'
            ) }}
        end
    {%- else -%}
        {{ churn_scoring.clean_text(
            'substr(' ~ churn_scoring.clean_text(
                'cast(' ~ expression ~ ' as ' ~ dbt.type_string() ~ ')'
            ) ~ ', 1, 60)'
        ) }}
    {%- endif -%}
{%- endmacro %}
