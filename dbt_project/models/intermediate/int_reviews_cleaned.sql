with

events as (

    select
        user_id,
        event_date,
        event_ts,

        {{ churn_scoring.clean_review('review_text') }} as review_text,
        {{ churn_scoring.exact_units('rating') }} as rating_units

    from {{ ref('stg_churn__events') }}

    where review_text is not null

),

reviews as (

    select distinct
        user_id,
        event_date,
        event_ts,
        review_text,
        rating_units

    from events

    where review_text != ''

),

sentiment_words as (

    select
        word,
        polarity

    from {{ ref('review_sentiment_words') }}

),

{# Each different text is read once. #}
texts as (

    select distinct review_text from reviews

),

words as (

    select
        review_text,
        {{ churn_scoring.unnest_list(
            churn_scoring.text_words('review_text')
        ) }} as word

    from texts

),

polarities as (

    select
        words.review_text,

        count(case when sentiment_words.polarity > 0 then 1 end) as positive_word_count,
        count(case when sentiment_words.polarity < 0 then 1 end) as negative_word_count

    from words

    inner join sentiment_words
        on words.word = sentiment_words.word

    group by 1

),

scored as (

    select
        reviews.*,

        coalesce(polarities.positive_word_count, 0) as positive_word_count,
        coalesce(polarities.negative_word_count, 0) as negative_word_count

    from reviews

    left join polarities
        on reviews.review_text = polarities.review_text

)

select * from scored
