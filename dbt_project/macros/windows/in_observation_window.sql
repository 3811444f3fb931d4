{#
    Inside [cutoff - observation_days, cutoff): the only place where this bound is
    written. Events are compared by their UTC date, which is the same as comparing
    instants, because a cutoff is a midnight.
#}
{% macro in_observation_window(event_date, cutoff_date) %}
    {{ return(adapter.dispatch('in_observation_window', 'churn_scoring')(
        event_date, cutoff_date
    )) }}
{% endmacro %}

{% macro default__in_observation_window(event_date, cutoff_date) -%}
    {%- set days = churn_scoring.get_churn_var('observation_days') -%}
    ({{ event_date }} >= {{ churn_scoring.shift_date(cutoff_date, -days) }}
        and {{ event_date }} < {{ cutoff_date }})
{%- endmacro %}
