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

features as (

    select * from {{ ref('int_features_windowed_to_cutoffs') }}

),

visits as (

    select
        user_id,
        cutoff_date,
        behavior_text

    from {{ ref('int_visits_serialized_to_text') }}

),

reviews as (

    select
        user_id,
        cutoff_date,
        review_text_recent

    from {{ ref('int_reviews_windowed_to_cutoffs') }}

),

hashed as (

    select
        features.user_id,
        features.cutoff_date,
        features.input_fingerprint,

        {{ churn_scoring.hash_input(
            'visits.behavior_text', 'reviews.review_text_recent', 'features'
        ) }} as input_hash

    from stale_cutoffs

    inner join features
        on stale_cutoffs.cutoff_date = features.cutoff_date

    inner join visits
        on
            features.cutoff_date = visits.cutoff_date
            and features.user_id = visits.user_id

    left join reviews
        on
            features.cutoff_date = reviews.cutoff_date
            and features.user_id = reviews.user_id

)

select * from hashed
