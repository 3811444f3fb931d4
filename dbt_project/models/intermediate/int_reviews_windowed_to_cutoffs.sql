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

population as (

    select
        users.user_id,
        users.cutoff_date,
        users.input_fingerprint

    from {{ ref('int_users_joined_to_cutoffs') }} as users

    inner join stale_cutoffs
        on users.cutoff_date = stale_cutoffs.cutoff_date

),

reviews as (

    select
        user_id,
        event_date,
        event_ts,
        rating_units,
        review_text,
        positive_word_count,
        negative_word_count,

        {{ churn_scoring.serialize_review('rating_units', 'review_text') }}
            as review_words

    from {{ ref('int_reviews_cleaned') }}

),

{# Reviews that tie on everything in this order read the same. #}
observed as (

    select
        population.user_id,
        population.cutoff_date,
        population.input_fingerprint,

        reviews.review_words,
        reviews.positive_word_count,
        reviews.negative_word_count,

        row_number() over (
            partition by population.user_id, population.cutoff_date
            order by
                reviews.event_ts desc,
                reviews.rating_units desc nulls last,
                reviews.review_text asc
        ) as review_number

    from population

    inner join reviews
        on
            population.user_id = reviews.user_id
            and {{ churn_scoring.in_observation_window(
                'reviews.event_date', 'population.cutoff_date'
            ) }}

),

serialized as (

    select
        user_id,
        cutoff_date,
        input_fingerprint,

        {{ dbt.listagg(
            "case when review_number <= "
            ~ churn_scoring.get_churn_var('max_reviews') ~ " then review_words end",
            "' | '",
            "order by review_number"
        ) }} as review_text_recent,
        sum(positive_word_count) as positive_word_count,
        sum(negative_word_count) as negative_word_count

    from observed

    group by 1, 2, 3

)

select * from serialized
