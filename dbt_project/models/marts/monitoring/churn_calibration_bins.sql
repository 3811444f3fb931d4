{#
    The bins of the trainer's expected_calibration_error: ten of equal mass, cut from
    the highest probability down; users of equal probability share the bin of their
    middle.
#}
{%- set num_bins = 10 -%}

with

ranked_outcomes as (

    {{ churn_scoring.select_ranked_outcomes() }}

),

binned as (

    select
        bundle_id,
        cutoff_date,
        churn_probability,
        user_count,
        churned_count,
        {{ num_bins }} - cast(floor(
            {{ churn_scoring.quotient(
                num_bins ~ ' * (2 * users_so_far - user_count)', '2 * users_in_all'
            ) }}
        ) as integer) as bin_number

    from ranked_outcomes

),

bins as (

    select
        bundle_id,
        bin_number,
        cutoff_date,
        min(churn_probability) as bin_low,
        max(churn_probability) as bin_high,
        cast(sum(user_count) as {{ dbt.type_bigint() }}) as user_count,
        {{ churn_scoring.quotient(
            churn_scoring.exact_sum('user_count * churn_probability'),
            'sum(user_count)'
        ) }} as mean_probability,
        {{ churn_scoring.quotient('sum(churned_count)', 'sum(user_count)') }}
            as observed_rate

    from binned

    group by 1, 2, 3

),

reordered as (

    select
        bundle_id,
        bin_number,
        bin_low,
        bin_high,
        user_count,
        mean_probability,
        observed_rate,
        cutoff_date

    from bins

)

select * from reordered
