{#- At most this many words of a category or item name are used. -#}
{%- set words_per_name = 2 -%}
{%- set max_words = churn_scoring.get_churn_var('max_words_per_visit') -%}
{%- set half_words = (max_words + 1) // 2 -%}

with

visits as (

    select
        *,

        lead(event_date) over (
            partition by user_id order by event_date
        ) as next_visit_date

    from {{ ref('int_events_aggregated_to_days') }}

    where is_visit = 1

),

names as (

    select
        user_id,
        category as name,
        event_date,
        amount_units,
        event_count,
        1 as is_category

    from {{ ref('int_categories_aggregated_to_days') }}

    union all

    select
        user_id,
        item_name as name,
        event_date,
        amount_units,
        event_count,
        0 as is_category

    from {{ ref('int_items_aggregated_to_days') }}

    where item_name is not null

),

ranked as (

    select
        user_id,
        name,
        event_date,
        is_category,

        row_number() over (
            partition by user_id, event_date, is_category
            order by amount_units desc, event_count desc, name asc
        ) as name_number

    from names

),

{# As many names as words: enough unless names hold no usable word. #}
top_names as (

    select * from ranked

    where name_number <= {{ max_words }}

),

{# Each different name is read once. #}
different_names as (

    select distinct name from top_names

),

dictionary as (

    select
        name,
        {{ churn_scoring.first_items(
            churn_scoring.text_words('name'), words_per_name
        ) }} as words

    from different_names

),

worded as (

    select
        top_names.user_id,
        top_names.event_date,

        {{ churn_scoring.flatten_words(
            'dictionary.words', 'top_names.name_number', 'top_names.is_category = 1'
        ) }} as category_words,
        {{ churn_scoring.flatten_words(
            'dictionary.words', 'top_names.name_number', 'top_names.is_category = 0'
        ) }} as item_words

    from top_names

    inner join dictionary
        on top_names.name = dictionary.name

    group by 1, 2

),

listed as (

    select
        user_id,
        event_date,
        {{ churn_scoring.join_lists('category_words', 'item_words') }} as all_words,
        item_words

    from worded

),

different_words as (

    select
        user_id,
        event_date,
        {{ churn_scoring.distinct_words('all_words') }} as all_words,
        {{ churn_scoring.distinct_words('item_words') }} as item_words

    from listed

),

serialized as (

    select
        visits.user_id,
        visits.event_date,
        visits.visit_number,
        visits.is_purchase_day,
        visits.amount_units,
        visits.visit_event_count,

        {# The newest visit of a window has the cutoff after it instead. #}
        {{ churn_scoring.bucketize(
            dbt.datediff('visits.event_date', 'visits.next_visit_date', 'day'), 'days'
        ) }} as gap_words,
        {{ churn_scoring.serialize_visit_kind('visits') }} as kind_words,
        {{ churn_scoring.first_words('different_words.all_words', max_words) }}
            as full_words,
        {{ churn_scoring.first_words('different_words.all_words', half_words) }}
            as half_words,
        {{ churn_scoring.first_words('different_words.item_words', max_words) }}
            as full_item_words,
        {{ churn_scoring.first_words('different_words.item_words', half_words) }}
            as half_item_words

    from visits

    left join different_words
        on
            visits.user_id = different_words.user_id
            and visits.event_date = different_words.event_date

)

select * from serialized
