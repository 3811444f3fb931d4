{#
    Definitions are those of trainer.evaluate.metrics, and scikit-learn's where it has
    one. Sums of doubles are exact, so that a build which changes nothing changes no
    digit.
#}
{# scikit-learn clips log loss at the machine epsilon of a double #}
{%- set clipped = 'least(greatest(churn_probability, 2.220446049250313e-16), '
    ~ '1 - 2.220446049250313e-16)' -%}

with

outcomes as (

    select
        bundle_id,
        cutoff_date,
        label_change_count,
        is_flagged,
        is_churned,
        is_out_of_time

    from {{ ref('churn_score_outcomes') }}

),

ranked_outcomes as (

    {{ churn_scoring.select_ranked_outcomes() }}

),

calibration_bins as (

    select
        bundle_id,
        cutoff_date,
        user_count,
        mean_probability,
        observed_rate

    from {{ ref('churn_calibration_bins') }}

),

counted as (

    select
        bundle_id,
        cutoff_date,

        count(*) as user_count,
        count(case when is_churned then 1 end) as churned_count,
        count(case when is_flagged then 1 end) as flagged_count,
        count(case when is_flagged and is_churned then 1 end) as flagged_churned_count,
        count(case when label_change_count > 0 then 1 end) as changed_label_count,
        max(case when is_out_of_time then 1 when not is_out_of_time then 0 end) = 1
            as is_out_of_time

    from outcomes

    group by 1, 2

),

{# Per threshold: what it adds to each metric. #}
thresholds as (

    select
        bundle_id,
        cutoff_date,
        user_count * churn_probability as probability_sum,

        {# Churners above stayers, counted twice: ties are a half. #}
        (user_count - churned_count) * (2 * churned_so_far - churned_count)
            as won_twice,

        {{ churn_scoring.quotient('churned_count * churned_so_far', 'users_so_far') }}
            as precision_sum,

        churned_count * (1 - churn_probability) * (1 - churn_probability)
        + (user_count - churned_count) * churn_probability * churn_probability
            as square_sum,

        -churned_count * ln({{ clipped }})
        - (user_count - churned_count) * ln(1 - {{ clipped }}) as log_sum,

        {# Ten times the churners among the tenth with the highest probability; users
           who tie at its edge share what is left. #}
        case
            when 10 * users_so_far <= users_in_all then 10 * churned_count
            when 10 * (users_so_far - user_count) < users_in_all
                then {{ churn_scoring.quotient(
                    'churned_count
                    * (users_in_all - 10 * (users_so_far - user_count))',
                    'user_count'
                ) }}
            else 0
        end as captured_tenfold

    from ranked_outcomes

),

summed as (

    select
        bundle_id,
        cutoff_date,

        sum(won_twice) as won_twice,
        {{ churn_scoring.exact_sum('probability_sum') }} as probability_sum,
        {{ churn_scoring.exact_sum('precision_sum') }} as precision_sum,
        {{ churn_scoring.exact_sum('square_sum') }} as square_sum,
        {{ churn_scoring.exact_sum('log_sum') }} as log_sum,
        {{ churn_scoring.exact_sum('captured_tenfold') }} as captured_tenfold

    from thresholds

    group by 1, 2

),

gaps as (

    select
        bundle_id,
        cutoff_date,

        {{ churn_scoring.exact_sum(
            'user_count * abs(mean_probability - observed_rate)'
        ) }} as gap_sum

    from calibration_bins

    group by 1, 2

),

performance as (

    select
        counted.bundle_id,
        counted.user_count,
        counted.churned_count,
        {{ churn_scoring.quotient('counted.churned_count', 'counted.user_count') }}
            as base_rate,
        {{ churn_scoring.quotient('summed.probability_sum', 'counted.user_count') }}
            as mean_probability,
        {{ churn_scoring.quotient(
            'summed.won_twice',
            '2 * counted.churned_count * (counted.user_count - counted.churned_count)'
        ) }} as auroc,
        {{ churn_scoring.quotient('summed.precision_sum', 'counted.churned_count') }}
            as average_precision,
        {{ churn_scoring.quotient('summed.square_sum', 'counted.user_count') }}
            as brier_score,
        {{ churn_scoring.quotient('summed.log_sum', 'counted.user_count') }}
            as log_loss,
        {{ churn_scoring.quotient('gaps.gap_sum', 'counted.user_count') }}
            as calibration_error,
        {{ churn_scoring.quotient('summed.captured_tenfold', 'counted.churned_count') }}
            as lift_top_decile,
        counted.flagged_count,
        {{ churn_scoring.quotient(
            'counted.flagged_churned_count', 'counted.flagged_count'
        ) }} as flagged_precision,
        {{ churn_scoring.quotient(
            'counted.flagged_churned_count', 'counted.churned_count'
        ) }} as flagged_recall,
        counted.changed_label_count,
        counted.is_out_of_time,
        counted.cutoff_date

    from counted

    inner join summed
        on
            counted.bundle_id = summed.bundle_id
            and counted.cutoff_date = summed.cutoff_date

    inner join gaps
        on
            counted.bundle_id = gaps.bundle_id
            and counted.cutoff_date = gaps.cutoff_date

)

select * from performance
