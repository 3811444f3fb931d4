{#
    Once a champion has scored: every user at the score cutoff has exactly one score of
    it for its present input or, when listed in churn_unscorable, none at all; and no
    score stands there for a user who is not in the population.
#}
with

examples as (

    select
        user_id,
        cutoff_date,
        input_hash

    from {{ ref('churn_examples') }}
    where is_score_cutoff

),

champion as (

    select bundle_id from {{ ref('int_inputs_scored') }}
    union distinct
    select bundle_id from {{ ref('int_inputs_unscorable') }}

),

unscorable as (

    select distinct user_id from {{ ref('churn_unscorable') }}

),

scores as (

    select
        user_id,
        cutoff_date,
        input_hash,
        bundle_id

    from {{ ref('churn_scores') }}
    where cutoff_date in (select examples.cutoff_date from examples)

),

not_scored_once as (

    select
        examples.user_id,

        count(scores.user_id) as score_count

    from examples

    cross join champion

    left join scores
        on examples.user_id = scores.user_id
        and examples.cutoff_date = scores.cutoff_date
        and examples.input_hash = scores.input_hash
        and champion.bundle_id = scores.bundle_id

    where
        examples.user_id is not null
        and examples.user_id not in (

            select unscorable.user_id from unscorable
            where unscorable.user_id is not null

        )

    group by 1

    having count(scores.user_id) <> 1

),

scored_though_unscorable as (

    select
        scores.user_id,

        count(*) as score_count

    from scores

    inner join champion
        on scores.bundle_id = champion.bundle_id

    inner join unscorable
        on scores.user_id = unscorable.user_id

    group by 1

),

not_in_population as (

    select
        scores.user_id,

        1 as score_count

    from scores

    left join examples
        on scores.user_id = examples.user_id

    where examples.user_id is null

),

failures as (

    select * from not_scored_once
    union all
    select * from scored_though_unscorable
    union all
    select * from not_in_population

)

select * from failures
