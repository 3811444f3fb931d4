{#
    Queries, as CTEs, for the drift of words, from CTEs `unmeasured`, `unmeasured_cutoffs` and
    `drift_references`; the last is `token_drift`. A word is there or not, so both
    distances are the difference of the shares.
#}
{% macro select_token_drift() %}
texts as (

    select
        visits.cutoff_date,
        visits.user_id,
        {{ churn_scoring.word_set(
            "visits.behavior_text || ' ' || coalesce(reviews.review_text_recent, '')"
        ) }} as words

    from {{ ref('int_visits_serialized_to_text') }} as visits

    inner join unmeasured_cutoffs
        on visits.cutoff_date = unmeasured_cutoffs.cutoff_date

    left join {{ ref('int_reviews_windowed_to_cutoffs') }} as reviews
        on
            visits.user_id = reviews.user_id
            and visits.cutoff_date = reviews.cutoff_date

),

text_totals as (

    select
        cutoff_date,

        count(*) as current_count

    from texts

    group by 1

),

user_words as (

    select
        cutoff_date,
        user_id,
        {{ churn_scoring.unnest_list('words') }} as word

    from texts

),

tokens as (

    select
        unmeasured.cutoff_date,
        drift_references.bundle_id,
        drift_references.subject,
        drift_references.row_count as reference_count,
        drift_references.known_count as reference_in_bin,
        drift_references.user_count as reference_user_count,
        drift_references.mean as reference_mean,
        drift_references.standard_deviation as reference_standard_deviation

    from unmeasured

    inner join drift_references
        on unmeasured.bundle_id = drift_references.bundle_id

    where
        drift_references.part = 'subject'
        and drift_references.subject_type = 'token'

),

listed_words as (

    select
        unmeasured.cutoff_date,
        unmeasured.bundle_id,
        user_words.user_id,
        coalesce(tokens.subject, '[other]') as subject,
        tokens.subject is not null as is_listed

    from unmeasured

    inner join user_words
        on unmeasured.cutoff_date = user_words.cutoff_date

    left join tokens
        on
            unmeasured.cutoff_date = tokens.cutoff_date
            and unmeasured.bundle_id = tokens.bundle_id
            and user_words.word = tokens.subject

    where user_words.word <> ''

),

token_counts as (

    select
        cutoff_date,
        bundle_id,
        subject,

        count(*) as user_count

    from listed_words

    where is_listed

    group by 1, 2, 3

    union all

    select
        cutoff_date,
        bundle_id,
        subject,

        count(distinct user_id) as user_count

    from listed_words

    where not is_listed

    group by 1, 2, 3

),

counted_tokens as (

    select
        tokens.*,
        text_totals.current_count,
        coalesce(token_counts.user_count, 0) as current_in_bin,
        {{ churn_scoring.quotient(
            'coalesce(token_counts.user_count, 0)', 'text_totals.current_count'
        ) }} as current_mean

    from tokens

    inner join text_totals
        on tokens.cutoff_date = text_totals.cutoff_date

    left join token_counts
        on
            tokens.cutoff_date = token_counts.cutoff_date
            and tokens.bundle_id = token_counts.bundle_id
            and tokens.subject = token_counts.subject

),

token_drift as (

    select
        *,
        {{ churn_scoring.smoothed_psi_term(
            'current_in_bin', 'current_count', 'reference_in_bin', 'reference_count', 2
        ) }}
        + {{ churn_scoring.smoothed_psi_term(
            '(current_count - current_in_bin)', 'current_count',
            '(reference_count - reference_in_bin)', 'reference_count', 2
        ) }} as population_stability_index,
        abs(current_mean - reference_mean) as distance

    from counted_tokens

)
{% endmacro %}
