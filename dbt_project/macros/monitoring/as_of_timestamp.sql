{# The clock by which the age of the data is judged, as a timestamp literal in UTC. #}
{% macro as_of_timestamp() -%}
    {%- set as_of = churn_scoring.get_churn_var('as_of') -%}
    {%- if as_of == 'now' -%}
    {{ churn_scoring.current_utc_timestamp() }}
    {%- else -%}
    cast('{{ as_of }}' as timestamp)
    {%- endif -%}
{%- endmacro %}
