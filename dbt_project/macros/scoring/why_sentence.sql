{#
    One plain sentence on why a customer is at risk: facts of the feature group that raises
    the risk most. `reason` is an expression with the group's name, null when no group
    stands out; `features` is the alias of the relation with the feature columns. A fact
    that is unknown gives way to the next sentence, so the result is never null.
#}
{% macro why_sentence(reason, features) -%}
    {%- set types = churn_scoring.get_churn_var('qualifying_event_types') -%}
    {%- set noun = 'order' if types == ['purchase'] else 'activity' -%}
    {%- set window = churn_scoring.get_churn_var('observation_days') -%}
    {%- set year, quarter, month =
        [365, window] | min, [90, window] | min, [30, window] | min
    -%}
    {%- set silence = churn_scoring.count_text(features ~ '.days_since_active', 'day') -%}
    {%- set last_seen = "'last " ~ noun ~ " ' || " ~ silence ~ " || ' ago'" -%}
    {%- set rhythm = churn_scoring.count_text(features ~ '.gap_mean_days', 'day') -%}
    coalesce(
        case {{ reason }}
            when 'recency' then coalesce(
                'No {{ noun }} for ' || {{ silence }} || '; usually every ' || {{ rhythm }},
                'No {{ noun }} for ' || {{ silence }}
            )
            when 'rhythm' then coalesce(
                'Usually every ' || {{ rhythm }} || '; ' || {{ last_seen }},
                'No second active day yet; ' || {{ last_seen }}
            )
            when 'frequency' then
                'Active on '
                || {{ churn_scoring.count_text(features ~ '.active_day_count_90d', 'day') }}
                || ' of the last {{ quarter }}, '
                || {{ churn_scoring.number_text(features ~ '.active_day_count_365d') }}
                || ' of the last {{ year }}'
            when 'spend' then
                'Spent '
                || {{ churn_scoring.number_text(features ~ '.amount_90d') }}
                || ' in the last {{ quarter }} days, '
                || {{ churn_scoring.number_text(features ~ '.amount_365d') }}
                || ' in the last {{ year }}'
            when 'basket' then
                'Last purchase day worth '
                || {{ churn_scoring.number_text(features ~ '.purchase_day_amount_last') }}
                || ', on average '
                || {{ churn_scoring.number_text(features ~ '.purchase_day_amount_mean') }}
            when 'variety' then
                'Categories in the last {{ quarter }} days: '
                || {{ churn_scoring.number_text(features ~ '.category_count_90d') }}
                || ', in the last {{ window }}: '
                || {{ churn_scoring.number_text(features ~ '.category_count') }}
            when 'returns' then
                {{ churn_scoring.count_text(features ~ '.return_count_365d', 'return') }}
                || ' in the last {{ year }} days'
            when 'engagement' then
                {{ churn_scoring.count_text(features ~ '.view_count_90d', 'view') }}
                || ' and '
                || {{ churn_scoring.count_text(features ~ '.cart_count_90d', 'cart event') }}
                || ' in the last {{ quarter }} days'
            when 'reviews' then coalesce(
                'Last rating '
                || cast(
                    round({{ features }}.rating_last, 1) as {{ dbt.type_string() }}
                )
                || ', on average '
                || cast(
                    round({{ features }}.rating_mean, 1) as {{ dbt.type_string() }}
                ),
                'No rating given; ' || {{ last_seen }}
            )
            when 'discounts' then
                {{ churn_scoring.number_text(features ~ '.discount_share', 100) }}
                || ' % of the value bought was discount'
            when 'trend' then
                'Active on '
                || {{ churn_scoring.count_text(features ~ '.active_day_count_30d', 'day') }}
                || ' of the last {{ month }}, '
                || {{ churn_scoring.number_text(features ~ '.active_day_count_90d') }}
                || ' of the last {{ quarter }}'
            when 'calendar' then
                {{ churn_scoring.number_text(features ~ '.weekend_share', 100) }}
                || ' % of active days on weekends; ' || {{ last_seen }}
            when 'profile' then
                'Profile like that of customers who left; ' || {{ last_seen }}
            when 'tenure' then
                'First seen '
                || {{ churn_scoring.count_text(features ~ '.tenure_days', 'day') }}
                || ' ago'
            when 'behaviour_text' then
                'History of visits like that of customers who left; ' || {{ last_seen }}
        end,
        case
            when {{ reason }} is not null then 'Raised mainly by ' || {{ reason }}
        end,
        'Nothing raises the risk above that of a typical customer; ' || {{ last_seen }},
        'Nothing raises the risk above that of a typical customer'
    )
{%- endmacro %}
