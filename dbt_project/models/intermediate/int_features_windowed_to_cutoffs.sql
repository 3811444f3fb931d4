{{ config(
    materialized='incremental',
    incremental_strategy='append',
    on_schema_change='sync_all_columns',
    pre_hook="{{ churn_scoring.delete_stale_cutoffs() }}"
) }}

with

stale_cutoffs as (

    {{ churn_scoring.select_stale_cutoffs() }}

),

activity as (

    select * from {{ ref('int_activity_windowed_to_cutoffs') }}

),

gaps as (

    select * from {{ ref('int_gaps_windowed_to_cutoffs') }}

),

variety as (

    select * from {{ ref('int_variety_windowed_to_cutoffs') }}

),

reviews as (

    select
        user_id,
        cutoff_date,
        positive_word_count,
        negative_word_count

    from {{ ref('int_reviews_windowed_to_cutoffs') }}

),

users as (

    select
        user_id,
        profile_field_count

    from {{ ref('stg_churn__users') }}

),

features as (

    select
        activity.user_id,
        activity.cutoff_date,
        activity.input_fingerprint,

        {# Recency and tenure. #}
        cast(gaps.recency_days as double) as days_since_active,
        cast(activity.visit_recency_days as double) as days_since_visit,
        cast(activity.return_recency_days as double) as days_since_return,
        cast(activity.view_or_cart_recency_days as double) as days_since_view_or_cart,
        cast(activity.tenure_days as double) as tenure_days,

        {# Frequency. #}
        {% for days in [7, 14, 30, 60, 90, 180, 365] -%}
        cast(activity.is_active_{{ days }}d as double) as active_day_count_{{ days }}d,
        {% endfor -%}
        {% for days in [14, 30, 90] -%}
        {{ churn_scoring.ratio(
            'activity.decayed_active_micros_' ~ days ~ 'd', '1000000'
        ) }} as decayed_active_days_{{ days }}d,
        {% endfor -%}
        cast(activity.qualifying_event_count_30d as double)
            as qualifying_event_count_30d,
        cast(activity.qualifying_event_count_90d as double)
            as qualifying_event_count_90d,
        cast(activity.order_count_90d as double) as order_count_90d,
        cast(activity.order_count_365d as double) as order_count_365d,
        {{ churn_scoring.ratio('activity.is_active', 'gaps.active_tenure_days') }}
            as active_day_share,
        {{ churn_scoring.ratio(
            '30 * (activity.is_active + 1)',
            'gaps.active_tenure_days + 30'
        ) }} as active_days_per_30d,

        {# Rhythm: gaps between active days. #}
        {{ churn_scoring.ratio('gaps.gap_sum', 'gaps.gap_count') }} as gap_mean_days,
        cast(gaps.gap_median as double) as gap_median_days,
        gaps.gap_std as gap_std_days,
        {{ churn_scoring.ratio('gaps.gap_std * gaps.gap_count', 'gaps.gap_sum') }}
            as gap_variation,
        cast(gaps.gap_longest as double) as gap_longest_days,
        cast(gaps.gap_last as double) as gap_last_days,
        {{ churn_scoring.ratio('gaps.recent_gap_sum', 'gaps.recent_gap_count') }}
            as gap_recent_mean_days,
        {{ churn_scoring.ratio('gaps.recency_days * gaps.gap_count', 'gaps.gap_sum') }}
            as recency_over_gap_mean,
        {{ churn_scoring.ratio('gaps.recency_days', 'gaps.gap_longest') }}
            as recency_over_gap_longest,
        {{ churn_scoring.ratio('gaps.longer_gap_count', 'gaps.gap_count') }}
            as longer_gap_share,
        {{ churn_scoring.ratio(
            'gaps.horizon_gap_count + 0.5',
            'gaps.longer_gap_count + 1'
        ) }} as gap_ending_in_horizon_share,
        gaps.gap_clumpiness,

        {# Spend and basket; unknown without a single known amount. #}
        {% for days in [30, 90, 365] -%}
        case
            when activity.amount_event_count > 0
                then {{ churn_scoring.ratio(
                    'activity.amount_units_' ~ days ~ 'd', '10000'
                ) }}
        end as amount_{{ days }}d,
        {% endfor -%}
        {{ churn_scoring.ratio(
            'activity.amount_units',
            'activity.is_purchase_day', 10000
        ) }} as purchase_day_amount_mean,
        activity.purchase_day_amount_std,
        {{ churn_scoring.ratio('activity.max_day_amount_units', '10000') }}
            as purchase_day_amount_max,
        {{ churn_scoring.ratio('activity.last_day_amount_units', '10000') }}
            as purchase_day_amount_last,
        {{ churn_scoring.ratio(
            'activity.last_day_amount_units * activity.is_purchase_day',
            'activity.amount_units'
        ) }} as last_amount_over_mean,
        {{ churn_scoring.ratio(
            'activity.purchase_event_count',
            'activity.order_count'
        ) }} as order_event_count_mean,
        {{ churn_scoring.ratio(
            'activity.quantity_units',
            'activity.order_count', 10000
        ) }} as order_quantity_mean,
        {{ churn_scoring.ratio(
            'activity.amount_units',
            'activity.priced_quantity_units'
        ) }} as unit_price_mean,

        {# Variety of what was bought or looked at. #}
        cast(coalesce(variety.category_count, 0) as double) as category_count,
        cast(coalesce(variety.category_count_90d, 0) as double) as category_count_90d,
        {{ churn_scoring.ratio(
            'variety.category_day_square_count',
            'variety.category_day_count * variety.category_day_count'
        ) }} as category_concentration,
        {{ churn_scoring.ratio(
            'variety.top_category_day_count',
            'variety.category_day_count'
        ) }} as top_category_share,
        {{ churn_scoring.ratio(
            'variety.new_category_count_90d',
            'variety.category_count_90d'
        ) }} as new_category_share_90d,
        cast(coalesce(variety.item_count, 0) as double) as item_count,
        {{ churn_scoring.ratio(
            'variety.item_day_square_count',
            'variety.item_day_count * variety.item_day_count'
        ) }} as item_concentration,
        {{ churn_scoring.ratio(
            'variety.item_day_count - variety.item_count',
            'variety.item_day_count'
        ) }} as repeat_item_share,

        {# Returns. #}
        cast(activity.return_event_count_90d as double) as return_count_90d,
        cast(activity.return_event_count_365d as double) as return_count_365d,
        {{ churn_scoring.ratio(
            'activity.return_amount_units',
            'activity.return_amount_units + activity.amount_units'
        ) }} as return_amount_share,

        {# Engagement. #}
        {% for role in ['view', 'cart', 'other'] -%}
        {% for days in [30, 90] -%}
        cast(activity.{{ role }}_event_count_{{ days }}d as double)
            as {{ role }}_count_{{ days }}d,
        {% endfor -%}
        {% endfor -%}
        cast(activity.campaign_event_count_90d as double) as campaign_count_90d,
        cast(activity.campaign_event_count_365d as double) as campaign_count_365d,
        cast(activity.campaign_recency_days as double) as days_since_campaign,

        {# Reviews. #}
        cast(activity.review_event_count_365d as double) as review_count_365d,
        cast(activity.rating_count as double) as rating_count,
        {{ churn_scoring.ratio(
            'activity.rating_units',
            'activity.rating_count', 10000
        ) }} as rating_mean,
        {{ churn_scoring.ratio(
            'activity.last_rating_units',
            'activity.last_rating_count', 10000
        ) }} as rating_last,
        {{ churn_scoring.ratio(
            'reviews.positive_word_count - reviews.negative_word_count',
            'reviews.positive_word_count + reviews.negative_word_count'
        ) }} as review_sentiment,

        {# Discounts. #}
        {{ churn_scoring.ratio(
            'activity.discount_units',
            'activity.discount_units + activity.amount_units'
        ) }} as discount_share,
        {{ churn_scoring.ratio(
            'activity.discount_event_count',
            'activity.discount_known_count'
        ) }} as discounted_event_share,

        {# Trend: a short window over a long one. #}
        {{ churn_scoring.ratio('activity.is_active_30d', 'activity.is_active_90d') }}
            as active_day_share_30_of_90d,
        {{ churn_scoring.ratio('activity.is_active_90d', 'activity.is_active_365d') }}
            as active_day_share_90_of_365d,
        {{ churn_scoring.ratio(
            'activity.amount_units_30d',
            'activity.amount_units_90d'
        ) }} as amount_share_30_of_90d,
        {{ churn_scoring.ratio(
            'activity.amount_units_90d',
            'activity.amount_units_365d'
        ) }} as amount_share_90_of_365d,
        {{ churn_scoring.ratio('gaps.gap_last * gaps.gap_count', 'gaps.gap_sum') }}
            as gap_last_over_mean,
        {{ churn_scoring.ratio(
            'cast(gaps.recent_gap_sum as double) * gaps.gap_count'
            ~ ' / gaps.recent_gap_count',
            'gaps.gap_sum'
        ) }} as gap_recent_over_mean,
        {{ churn_scoring.ratio(
            'activity.active_age_days',
            'activity.is_active * gaps.active_tenure_days'
        ) }} as activity_age_share,

        {# Calendar: shares of active days, by weekday and by hour of first activity. #}
        {{ churn_scoring.ratio(
            'activity.weekday_5_count + activity.weekday_6_count',
            'activity.is_active'
        ) }} as weekend_share,
        {% for part in ['night', 'morning', 'afternoon', 'evening'] -%}
        {{ churn_scoring.ratio('activity.' ~ part ~ '_count', 'activity.is_active') }}
            as {{ part }}_share,
        {% endfor -%}
        {{ churn_scoring.ratio('activity.top_weekday_count', 'activity.is_active') }}
            as top_weekday_share,

        {# Profile. #}
        cast(coalesce(users.profile_field_count, 0) as double) as profile_field_count

    from stale_cutoffs

    inner join activity
        on stale_cutoffs.cutoff_date = activity.cutoff_date

    inner join gaps
        on
            activity.cutoff_date = gaps.cutoff_date
            and activity.user_id = gaps.user_id

    inner join variety
        on
            activity.cutoff_date = variety.cutoff_date
            and activity.user_id = variety.user_id

    left join reviews
        on
            activity.cutoff_date = reviews.cutoff_date
            and activity.user_id = reviews.user_id

    left join users
        on activity.user_id = users.user_id

)

select * from features
