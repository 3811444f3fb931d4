{#
    Severity: a measure is above its threshold (seed churn_drift_thresholds) and beyond
    what chance does to so few users. What follows from a history that is still shorter
    than the windows is no drift.
#}
{%- set metrics = [
    'population_stability_index', 'kolmogorov_smirnov', 'wasserstein_distance',
] %}

with

measured as (

    select * from {{ ref('churn_drift_measures') }}

),

thresholds as (

    select
        subject_type,
        subject as subject_pattern,
        metric,
        warn_above,
        error_above

    from {{ ref('churn_drift_thresholds') }}

),

scaled as (

    select
        *,
        {{ churn_scoring.quotient(
            'wasserstein_distance', 'reference_standard_deviation'
        ) }} as relative_wasserstein,
        {{ churn_scoring.quotient('reference_spread', 'reference_standard_deviation') }}
            as relative_spread,
        {{ churn_scoring.quotient('1', 'current_count') }}
        + {{ churn_scoring.quotient('1', 'reference_user_count') }} as inverse_sizes,
        {# Users whose value is known. #}
        {{ churn_scoring.quotient('1', 'current_known_count') }}
        + {{ churn_scoring.quotient(
            'reference_count', 'reference_user_count * reference_known_count'
        ) }} as inverse_known_sizes,
        cutoff_date > reference_start_date
        and {{ dbt.datediff('history_start_date', 'reference_start_date', 'day') }}
        < {{ churn_scoring.drift_look_back_days('subject_type', 'subject') }}
            as is_window_filling

    from measured

),

metric_values as (

    {% for metric in metrics -%}
    select
        bundle_id,
        cutoff_date,
        subject_type,
        subject,
        is_window_filling,
        '{{ metric }}' as metric,
        {% if metric == 'wasserstein_distance' -%}
        relative_wasserstein
        {%- else -%}
        {{ metric }}
        {%- endif %} as metric_value,
        {% set sizes = 'inverse_sizes' if metric == 'population_stability_index'
            else 'inverse_known_sizes' -%}
        {{ churn_scoring.drift_noise(
            metric, sizes, 'bin_count', 'relative_spread'
        ) }} as noise,
        {# Of so few users, chance alone may have nobody like those learned from. #}
        {{ churn_scoring.drift_noise('kolmogorov_smirnov', sizes) }} >= 1
            as are_too_few
    from scaled
    {% if not loop.last %}
    union all

    {% endif -%}
    {% endfor %}
),

{# The threshold of a subject's own name comes first, then the longest pattern. #}
matched as (

    select
        metric_values.*,
        thresholds.warn_above,
        thresholds.error_above,
        row_number() over (
            partition by
                metric_values.bundle_id,
                metric_values.cutoff_date,
                metric_values.subject_type,
                metric_values.subject,
                metric_values.metric
            order by
                case
                    when metric_values.subject = thresholds.subject_pattern then 0
                    else 1
                end,
                length(thresholds.subject_pattern) desc,
                thresholds.subject_pattern
        ) as match_rank

    from metric_values

    inner join thresholds
        on
            metric_values.subject_type = thresholds.subject_type
            and metric_values.metric = thresholds.metric
            and metric_values.subject like thresholds.subject_pattern

),

limited as (

    select
        *,
        case
            when is_window_filling or are_too_few then 0
            when metric_value > greatest(error_above, noise) and error_above is not null
                then 2
            when metric_value > greatest(warn_above, noise) and warn_above is not null
                then 1
            else 0
        end as severity_level

    from matched

    where match_rank = 1

),

{# What decides is the worst severity, and of those the one furthest above its limit. #}
ranked as (

    select
        *,
        case
            when severity_level = 2 then greatest(error_above, noise)
            else greatest(warn_above, noise)
        end as metric_limit,
        row_number() over (
            partition by bundle_id, cutoff_date, subject_type, subject
            order by
                severity_level desc,
                coalesce(
                    metric_value / nullif(greatest(warn_above, noise), 0), -1
                ) desc,
                metric
        ) as metric_rank

    from limited

),

drift as (

    select
        scaled.bundle_id,
        scaled.subject_type,
        scaled.subject,
        case ranked.severity_level
            when 2 then 'error'
            when 1 then 'warn'
            else 'ok'
        end as severity,
        ranked.metric as deciding_metric,
        ranked.metric_value as deciding_value,
        ranked.metric_limit as deciding_limit,
        scaled.population_stability_index,
        scaled.kolmogorov_smirnov,
        scaled.wasserstein_distance,
        scaled.relative_wasserstein,
        scaled.reference_mean,
        scaled.current_mean,
        scaled.reference_count,
        scaled.current_count,
        scaled.reference_known_count,
        scaled.current_known_count,
        scaled.is_window_filling,
        scaled.cutoff_date

    from scaled

    left join ranked
        on
            scaled.bundle_id = ranked.bundle_id
            and scaled.cutoff_date = ranked.cutoff_date
            and scaled.subject_type = ranked.subject_type
            and scaled.subject = ranked.subject
            and ranked.metric_rank = 1

)

select * from drift
