{#
    Built whole every time, so that cutoffs which no longer apply go away. Cutoffs that
    were scored before are carried over from the table being replaced.
#}
{%- set previous = churn_scoring.previous_relation(this) -%}

with

bounds as (

    select
        data_end_date,
        {{ churn_scoring.shift_date('first_event_date', 1) }} as first_cutoff_date

    from {{ ref('int_data_bounds') }}

),

planned_cutoffs as (

    select
        cutoff_date,
        is_training_cutoff,
        is_score_cutoff

    from {{ ref('int_cutoffs_planned') }}

),

events as (

    select
        event_key,
        event_role,
        event_date

    from {{ ref('stg_churn__events') }}

),

users as (

    select
        user_id,
        profile_json,
        profile_text

    from {{ ref('stg_churn__users') }}

),

{% if previous is not none -%}
earlier_scored as (

    select previous_cutoffs.cutoff_date

    from {{ previous }} as previous_cutoffs

    inner join bounds
        on previous_cutoffs.cutoff_date >= bounds.first_cutoff_date
        and previous_cutoffs.cutoff_date <= bounds.data_end_date

    left join planned_cutoffs
        on previous_cutoffs.cutoff_date = planned_cutoffs.cutoff_date

    where previous_cutoffs.was_scored
        and planned_cutoffs.cutoff_date is null

),

{% endif -%}
cutoffs as (

    select
        planned_cutoffs.cutoff_date,
        planned_cutoffs.is_training_cutoff,
        planned_cutoffs.is_score_cutoff,
        {% if previous is not none -%}
        planned_cutoffs.is_score_cutoff
        or planned_cutoffs.cutoff_date in (
            select previous_cutoffs.cutoff_date
            from {{ previous }} as previous_cutoffs
            where previous_cutoffs.was_scored
        ) as was_scored
        {%- else -%}
        planned_cutoffs.is_score_cutoff as was_scored
        {%- endif %}

    from planned_cutoffs

    {% if previous is not none -%}
    union all

    select
        cutoff_date,
        false as is_training_cutoff,
        false as is_score_cutoff,
        true as was_scored

    from earlier_scored
    {%- endif %}

),

day_hashes as (

    select
        event_date,

        count(*) as event_count,
        {{ churn_scoring.sum_of_hashes("event_key || event_role") }} as hash_sum

    from events

    group by 1

),

cutoff_hashes as (

    select
        cutoffs.cutoff_date,

        sum(day_hashes.event_count) as event_count,
        sum(day_hashes.hash_sum) as hash_sum

    from cutoffs

    left join day_hashes
        on {{ churn_scoring.in_observation_window(
            'day_hashes.event_date', 'cutoffs.cutoff_date'
        ) }}

    group by 1

),

word_hash as (

    select
        count(*) as word_count,
        {{ churn_scoring.sum_of_hashes("word || cast(polarity as "
            ~ dbt.type_string() ~ ")") }} as hash_sum

    from {{ ref('review_sentiment_words') }}

),

profile_hash as (

    select
        count(*) as user_count,
        {{ churn_scoring.sum_of_hashes(
            churn_scoring.hash_row(['user_id', 'profile_json', 'profile_text'])
        ) }} as hash_sum

    from users

),

fingerprinted as (

    select
        cutoffs.cutoff_date,

        '{{ churn_scoring.input_settings_hash() }}' as settings_hash,
        {{ churn_scoring.hash_row([
            "'" ~ churn_scoring.input_settings_hash() ~ "'",
            "cast(cutoff_hashes.event_count as " ~ dbt.type_string() ~ ")",
            "cast(cutoff_hashes.hash_sum as " ~ dbt.type_string() ~ ")",
            "cast(profile_hash.user_count as " ~ dbt.type_string() ~ ")",
            "cast(profile_hash.hash_sum as " ~ dbt.type_string() ~ ")",
            "cast(word_hash.word_count as " ~ dbt.type_string() ~ ")",
            "cast(word_hash.hash_sum as " ~ dbt.type_string() ~ ")",
        ]) }} as input_fingerprint,

        cutoffs.is_training_cutoff,
        cutoffs.is_score_cutoff,
        cutoffs.was_scored

    from cutoffs

    inner join cutoff_hashes
        on cutoffs.cutoff_date = cutoff_hashes.cutoff_date

    cross join profile_hash

    cross join word_hash

)

{% if flags.EMPTY and previous is not none -%}
{# An empty build says nothing about cutoffs: what was scored stays known. #}
select * from {{ previous }}
{%- else -%}
select * from fingerprinted
{%- endif %}
