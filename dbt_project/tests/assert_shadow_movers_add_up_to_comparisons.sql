{# What is told of each user is what the comparison of the same shadow counts. #}
with

movers as (

    select
        bundle_id,
        cutoff_date,

        count(*) as user_count,
        max(change_rank) as last_rank,
        count(case when is_tier_flip then 1 end) as tier_flip_count,
        count(case when is_flag_flip then 1 end) as flag_flip_count

    from {{ ref('churn_shadow_movers') }}

    group by 1, 2

),

failures as (

    select
        movers.bundle_id,
        movers.cutoff_date

    from movers

    left join {{ ref('churn_shadow_comparisons') }} as comparisons
        on
            movers.bundle_id = comparisons.bundle_id
            and movers.cutoff_date = comparisons.cutoff_date

    where
        comparisons.bundle_id is null
        or movers.user_count <> comparisons.user_count
        or movers.last_rank <> comparisons.user_count
        or movers.tier_flip_count <> comparisons.tier_flip_count
        or movers.flag_flip_count <> comparisons.flag_flip_count

)

select * from failures
