{#
    How many days before the cutoff a subject of drift depends on. While the data is younger
    than that at the reference's oldest cutoff, it changes because history grows. Names that
    end in `_90d` say so themselves; means, shares and last values settle within the
    eligibility window; everything else looks over the whole observation window: decayed
    counts and the gap between visits, and what is new only by what was there before.
#}
{% macro drift_look_back_days(subject_type, subject) %}
    {%- set observation_days = churn_scoring.get_churn_var('observation_days') -%}
    {%- set eligibility_days = churn_scoring.get_churn_var('eligibility_days') -%}
    {%- set settled = [
        'days_since_active', 'days_since_visit', 'purchase_day_amount_mean',
        'purchase_day_amount_last', 'order_event_count_mean', 'order_quantity_mean',
        'unit_price_mean', 'rating_last', 'discount_share', 'discounted_event_share',
        'weekend_share', 'night_share', 'morning_share', 'afternoon_share',
        'evening_share', 'profile_field_count',
    ] -%}
    case
        when {{ subject_type }} = 'score' then 0
        {%- for name in churn_scoring.feature_columns() %}
        {%- set days = modules.re.findall('([0-9]+)d$', name) %}
        {%- if name in settled %}
        when {{ subject_type }} = 'feature' and {{ subject }} = '{{ name }}'
            then {{ [eligibility_days, observation_days] | min }}
        {%- elif days and not name.startswith(('decayed_', 'new_')) %}
        when {{ subject_type }} = 'feature' and {{ subject }} = '{{ name }}'
            then {{ [days[0] | int, observation_days] | min }}
        {%- endif %}
        {%- endfor %}
        else {{ observation_days }}
    end
{%- endmacro %}
