{#
    A timestamp without time zone, in UTC, from a column of the given type family.
    Null where text is not a timestamp. Text without an offset is taken as UTC.
#}
{% macro to_utc_timestamp(expression, family) %}
    {{- return(
        adapter.dispatch('to_utc_timestamp', 'churn_scoring')(expression, family)
    ) -}}
{% endmacro %}


{% macro default__to_utc_timestamp(expression, family) -%}
    {%- if family in ('timestamp', 'timestamp_ns', 'date') -%}
        cast({{ expression }} as timestamp)
    {%- elif family == 'timestamptz' -%}
        to_utc_timestamp({{ expression }}, current_timezone())
    {%- else -%}
        try_cast({{ expression }} as timestamp)
    {%- endif -%}
{%- endmacro %}


{% macro duckdb__to_utc_timestamp(expression, family) -%}
    {%- if family in ('timestamp', 'date') -%}
        cast({{ expression }} as timestamp)
    {%- elif family == 'timestamp_ns' -%}
        {# A cast rounds, and so could move an event past midnight. #}
        make_timestamp(epoch_ns({{ expression }}) // 1000)
    {%- elif family == 'timestamptz' -%}
        timezone('UTC', {{ expression }})
    {%- else -%}
        {# A cast of text to timestamp would drop its offset without a word. #}
        timezone('UTC', coalesce(
            try_cast(trim({{ expression }}) || '+00:00' as timestamptz),
            try_cast(trim({{ expression }}) || ' 00:00:00+00:00' as timestamptz),
            try_cast(trim({{ expression }}) as timestamptz)
        ))
    {%- endif -%}
{%- endmacro %}
