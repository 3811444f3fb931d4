{#
    The start of this dbt run as a timestamp literal in UTC. Events after it are in the
    future. A unit test overrides this macro to stop the clock.
#}
{% macro current_utc_timestamp() -%}
    cast('{{ run_started_at.strftime("%Y-%m-%d %H:%M:%S.%f") }}' as timestamp)
{%- endmacro %}
