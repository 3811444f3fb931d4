{#
    What happened on a visit, each word with a blank before it. Nothing is said of what
    is usual: the only qualifying event type. Of the way to a purchase only the furthest
    step is named. `day` is a row of int_events_aggregated_to_days.
#}
{% macro serialize_visit_kind(day) -%}
    {%- set is_single_type =
        churn_scoring.get_churn_var('qualifying_event_types') | length == 1
    -%}
    {%- set is_usual = (day ~ '.is_active = 1') if is_single_type else 'false' -%}
    case
        when {{ is_usual }} then ''
        when {{ day }}.purchase_event_count > 0 then ' bought'
        when {{ day }}.cart_event_count > 0 then ' carted'
        when {{ day }}.view_event_count > 0 then ' viewed'
        when {{ day }}.return_event_count + {{ day }}.review_event_count > 0 then ''
        else {{ churn_scoring.first_words(
            churn_scoring.text_words(day ~ '.other_event_type'), 2
        ) }}
    end
    || case when {{ day }}.return_event_count > 0 then ' returned' else '' end
    || case when {{ day }}.review_event_count > 0 then ' reviewed' else '' end
{%- endmacro %}
