{#
    Inside [cutoff - eligibility_days, cutoff): a qualifying event here makes a user
    part of the population. Never longer than the observation window.
#}
{% macro in_eligibility_window(event_date, cutoff_date) %}
    {{ return(adapter.dispatch('in_eligibility_window', 'churn_scoring')(
        event_date, cutoff_date
    )) }}
{% endmacro %}

{% macro default__in_eligibility_window(event_date, cutoff_date) -%}
    {%- set days = churn_scoring.get_churn_var('eligibility_days') -%}
    ({{ event_date }} >= {{ churn_scoring.shift_date(cutoff_date, -days) }}
        and {{ event_date }} < {{ cutoff_date }})
{%- endmacro %}
