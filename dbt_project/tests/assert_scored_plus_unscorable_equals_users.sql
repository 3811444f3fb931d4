{#
    Once a champion has scored: the rows at the score cutoff are as many as those with a
    score of it and those listed in churn_unscorable together.
#}
with

champion as (

    select bundle_id from {{ ref('int_inputs_scored') }}
    union distinct
    select bundle_id from {{ ref('int_inputs_unscorable') }}

),

examples as (

    select count(*) as row_count from {{ ref('churn_examples') }}
    where is_score_cutoff

),

scored as (

    select count(*) as row_count

    from {{ ref('churn_scores') }} as scores

    inner join champion
        on scores.bundle_id = champion.bundle_id

    where
        scores.cutoff_date in (

            select cutoffs.cutoff_date
            from {{ ref('int_cutoffs_spined') }} as cutoffs
            where cutoffs.is_score_cutoff

        )

),

unscorable as (

    select
        count(distinct user_id)
        + sum(case when user_id is null then 1 else 0 end) as row_count

    from {{ ref('churn_unscorable') }}

),

counts as (

    select
        examples.row_count as example_count,
        scored.row_count as scored_count,
        coalesce(unscorable.row_count, 0) as unscorable_count

    from examples

    cross join scored

    cross join unscorable

)

select * from counts

where
    example_count <> scored_count + unscorable_count
    and exists (select champion.bundle_id from champion)
