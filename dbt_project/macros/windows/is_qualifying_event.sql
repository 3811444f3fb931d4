{# True for the event types that count as activity (var churn__qualifying_event_types). #}
{% macro is_qualifying_event(event_type) -%}
    {{ event_type }} in (
        {%- for name in churn_scoring.get_churn_var('qualifying_event_types') -%}
            {{ dbt.string_literal(dbt.escape_single_quotes(name)) }}
            {%- if not loop.last %}, {% endif -%}
        {%- endfor -%}
    )
{%- endmacro %}
