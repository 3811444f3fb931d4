{{ config(
    materialized='incremental',
    incremental_strategy='append',
    on_schema_change='sync_all_columns',
    pre_hook="{{ churn_scoring.delete_stale_cutoffs() }}"
) }}

{#- At most this many words of a user's profile are used. -#}
{%- set profile_words = 24 -%}

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

users as (

    select
        user_id,
        profile_text

    from {{ ref('stg_churn__users') }}

),

measured as (

    select
        activity.*,

        users.profile_text,
        gaps.recency_days,
        gaps.gap_count,
        gaps.gap_longest,
        cast(gaps.gap_sum as double) / nullif(gaps.gap_count, 0) as gap_mean,
        cast(gaps.recency_days * gaps.gap_count as double)
        / nullif(gaps.gap_sum, 0) as lateness,
        cast(activity.amount_units as double)
        / nullif(activity.is_purchase_day * 10000, 0) as day_amount,
        cast(activity.purchase_event_count as double)
        / nullif(activity.is_purchase_day, 0) as day_items,
        cast(
            round(
                cast(activity.rating_units as double) / nullif(activity.rating_count, 0)
            ) as bigint
        ) as mean_rating_units,
        case
            when activity.first_category = activity.last_category
                then activity.first_category
        end as only_category

    from stale_cutoffs

    inner join activity
        on stale_cutoffs.cutoff_date = activity.cutoff_date

    inner join gaps
        on
            activity.cutoff_date = gaps.cutoff_date
            and activity.user_id = gaps.user_id

    left join users
        on activity.user_id = users.user_id

),

serialized as (

    select
        user_id,
        cutoff_date,
        input_fingerprint,

        'known ' || {{ churn_scoring.bucketize('tenure_days', 'days') }}
        || {{ churn_scoring.first_words(
            churn_scoring.split_words('profile_text'), profile_words
        ) }}
        || {{ churn_scoring.first_words(
            churn_scoring.text_words('only_category'), 2
        ) }}
        || ' last ' || {{ churn_scoring.bucketize('recency_days', 'days') }}
        {% for key, expression, kind in [
            ('usual', 'gap_mean', 'days'),
            ('longest', 'case when gap_count > 1 then gap_longest end', 'days'),
        ] -%}
        || {{ churn_scoring.keyed_word(
            key, churn_scoring.bucketize(expression, kind)
        ) }}
        {% endfor -%}
        || case
            when lateness < 0.5 then ' early'
            when lateness < 1 then ' due'
            when lateness < 1.5 then ' late'
            when lateness < 2.5 then ' overdue'
            when lateness < 5 then ' lapsed'
            when lateness >= 5 then ' gone'
            else ' single'
        end
        {% for key, expression, kind in [
            ('days', 'is_active', 'count'),
            ('month', 'is_active_30d', 'count'),
            ('quarter', 'is_active_90d', 'count'),
            ('spend', 'day_amount', 'amount'),
            ('items', 'day_items', 'count'),
            ('returns', 'nullif(return_event_count, 0)', 'count'),
            ('campaigns', 'nullif(campaign_event_count, 0)', 'count'),
        ] -%}
        || {{ churn_scoring.keyed_word(
            key, churn_scoring.bucketize(expression, kind)
        ) }}
        {% endfor -%}
        || {{ churn_scoring.keyed_word(
            'rating', '(' ~ churn_scoring.serialize_rating('mean_rating_units') ~ ')'
        ) }}
        || ' visits' as standing_text,

        newest_visit_number,
        amount_units,
        is_purchase_day as purchase_day_count,
        visit_event_count,
        is_visit as visit_count,
        only_category is not null as has_only_category

    from measured

)

select * from serialized
