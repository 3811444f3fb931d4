{{ config(materialized='view') }}

with

cutoffs as (

    select
        cutoff_date,
        is_score_cutoff

    from {{ ref('int_cutoffs_spined') }}

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

hashes as (

    select
        user_id,
        cutoff_date,
        input_hash

    from {{ ref('int_inputs_hashed') }}

),

labels as (

    select
        user_id,
        cutoff_date,
        is_label_mature,
        is_churned

    from {{ ref('int_labels_matured') }}

),

examples as (

    select
        features.user_id,
        features.cutoff_date,
        visits.behavior_text,
        coalesce(reviews.review_text_recent, '') as review_text_recent,
        {% for name in churn_scoring.feature_columns() -%}
        features.{{ name }},
        {% endfor -%}
        hashes.input_hash,
        cutoffs.is_score_cutoff,
        labels.is_label_mature,
        labels.is_churned

    from features

    inner join cutoffs
        on features.cutoff_date = cutoffs.cutoff_date

    inner join visits
        on
            features.user_id = visits.user_id
            and features.cutoff_date = visits.cutoff_date

    inner join hashes
        on
            features.user_id = hashes.user_id
            and features.cutoff_date = hashes.cutoff_date

    inner join labels
        on
            features.user_id = labels.user_id
            and features.cutoff_date = labels.cutoff_date

    left join reviews
        on
            features.user_id = reviews.user_id
            and features.cutoff_date = reviews.cutoff_date

)

select * from examples
