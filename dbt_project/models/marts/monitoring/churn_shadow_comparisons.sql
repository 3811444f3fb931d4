{#
    Spearman's correlation: Pearson's of average ranks. Ranks are doubled and centred,
    so that all sums are of whole numbers and exact.
#}
{%- set doubled_rank -%}
2 * rank() over (
            partition by bundle_id, cutoff_date order by {column}
        )
        + count(*) over (partition by bundle_id, cutoff_date, {column})
        - 2 - count(*) over (partition by bundle_id, cutoff_date)
{%- endset %}

with

pairs as (

    {{ churn_scoring.select_shadow_pairs() }}

),

ranked as (

    select
        bundle_id,
        champion_bundle_id,
        cutoff_date,
        churn_probability,
        champion_churn_probability,
        {{ doubled_rank | replace('{column}', 'churn_probability') }} as centred_rank,
        {{ doubled_rank | replace('{column}', 'champion_churn_probability') }}
            as champion_centred_rank,
        case when risk_tier <> champion_risk_tier then 1 else 0 end as tier_flips,
        case when is_flagged <> is_flagged_by_champion then 1 else 0 end as flag_flips

    from pairs

),

summed as (

    select
        bundle_id,
        champion_bundle_id,
        cutoff_date,

        count(*) as user_count,
        sum(tier_flips) as tier_flip_count,
        sum(flag_flips) as flag_flip_count,
        {{ churn_scoring.exact_sum('churn_probability') }} as probability_sum,
        {{ churn_scoring.exact_sum('champion_churn_probability') }}
            as champion_probability_sum,
        {{ churn_scoring.exact_sum(
            'abs(churn_probability - champion_churn_probability)'
        ) }} as absolute_change_sum,
        cast(sum({{ churn_scoring.wide_integer(
            'centred_rank * champion_centred_rank'
        ) }}) as {{ churn_scoring.type_double() }}) as covariance,
        cast(sum({{ churn_scoring.wide_integer('centred_rank * centred_rank') }})
            as {{ churn_scoring.type_double() }}) as variance,
        cast(sum({{ churn_scoring.wide_integer(
            'champion_centred_rank * champion_centred_rank'
        ) }}) as {{ churn_scoring.type_double() }}) as champion_variance

    from ranked

    group by 1, 2, 3

),

comparisons as (

    select
        bundle_id,
        champion_bundle_id,
        cast(user_count as {{ dbt.type_bigint() }}) as user_count,
        case
            when variance > 0 and champion_variance > 0
                then least(1, greatest(-1, {{ churn_scoring.quotient(
                    'covariance', 'sqrt(variance * champion_variance)'
                ) }}))
        end as rank_correlation,
        {{ churn_scoring.quotient('probability_sum', 'user_count') }}
            as mean_probability,
        {{ churn_scoring.quotient('champion_probability_sum', 'user_count') }}
            as champion_mean_probability,
        {{ churn_scoring.quotient('absolute_change_sum', 'user_count') }}
            as mean_absolute_change,
        cast(tier_flip_count as {{ dbt.type_bigint() }}) as tier_flip_count,
        {{ churn_scoring.quotient('tier_flip_count', 'user_count') }}
            as tier_flip_share,
        cast(flag_flip_count as {{ dbt.type_bigint() }}) as flag_flip_count,
        cutoff_date

    from summed

)

select * from comparisons
