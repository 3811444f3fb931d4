{#
    Queries, as CTEs, for the drift of features and of the score, from a CTE `unmeasured` and a
    CTE `drift_references`; the last is `value_drift`. A distribution function is followed
    value by value over all values that are or were there, which makes Kolmogorov-Smirnov
    and Wasserstein exact.
#}
{% macro select_value_drift() %}
    {%- set keys = ['cutoff_date', 'bundle_id', 'subject_type', 'subject'] -%}

unmeasured_cutoffs as (

    select distinct cutoff_date from unmeasured

),

feature_values as (

    {% for name in churn_scoring.feature_columns() -%}
    select
        features.cutoff_date,
        '{{ name }}' as subject,
        {# 0.0 makes a negative zero a zero #}
        case
            when {{ churn_scoring.is_finite('features.' ~ name) }}
                then features.{{ name }} + 0.0
        end as value,

        count(*) as user_count

    from {{ ref('int_features_windowed_to_cutoffs') }} as features

    inner join unmeasured_cutoffs
        on features.cutoff_date = unmeasured_cutoffs.cutoff_date

    group by 1, 2, 3
    {% if not loop.last %}
    union all

    {% endif -%}
    {% endfor %}
),

current_values as (

    select
        unmeasured.cutoff_date,
        unmeasured.bundle_id,
        'feature' as subject_type,
        feature_values.subject,
        feature_values.value,
        feature_values.user_count

    from unmeasured

    inner join feature_values
        on unmeasured.cutoff_date = feature_values.cutoff_date

    union all

    select
        unmeasured.cutoff_date,
        unmeasured.bundle_id,
        'score' as subject_type,
        'churn_probability' as subject,
        scores.churn_probability as value,

        count(*) as user_count

    from unmeasured

    inner join {{ ref('churn_scores') }} as scores
        on
            unmeasured.cutoff_date = scores.cutoff_date
            and unmeasured.bundle_id = scores.bundle_id

    group by 1, 2, 3, 4, 5

),

current_totals as (

    select
        {{ keys | join(',\n        ') }},

        sum(user_count) as current_count,
        coalesce(sum(case when value is not null then user_count end), 0)
            as current_known_count,
        {{ churn_scoring.quotient(
            'sum(value * user_count)',
            'sum(case when value is not null then user_count end)'
        ) }} as current_mean

    from current_values

    group by 1, 2, 3, 4

),

{# Every subject that is known on both sides; what is sorted below has short keys. #}
totals as (

    select
        current_totals.*,
        row_number() over (
            order by
                current_totals.cutoff_date,
                current_totals.bundle_id,
                current_totals.subject_type,
                current_totals.subject
        ) as subject_number,
        drift_references.row_count as reference_count,
        drift_references.known_count as reference_known_count,
        drift_references.user_count as reference_user_count,
        drift_references.mean as reference_mean,
        drift_references.standard_deviation as reference_standard_deviation,
        drift_references.spread as reference_spread

    from current_totals

    inner join drift_references
        on
            current_totals.bundle_id = drift_references.bundle_id
            and current_totals.subject_type = drift_references.subject_type
            and current_totals.subject = drift_references.subject
            and drift_references.part = 'subject'

),

merged_values as (

    select
        subject_number,
        value,

        sum(user_count) as user_count,
        sum(reference_count) as reference_count

    from (

        select
            totals.subject_number,
            current_values.value,
            current_values.user_count,
            0 as reference_count

        from current_values

        inner join totals
            on
                current_values.cutoff_date = totals.cutoff_date
                and current_values.bundle_id = totals.bundle_id
                and current_values.subject_type = totals.subject_type
                and current_values.subject = totals.subject

        where current_values.value is not null

        union all

        {# Points of the reference, and bounds of bins, which have no rows. #}
        select
            totals.subject_number,
            drift_references.value,
            0 as user_count,
            case when drift_references.part = 'point' then drift_references.row_count
                else 0 end as reference_count

        from totals

        inner join drift_references
            on
                totals.bundle_id = drift_references.bundle_id
                and totals.subject_type = drift_references.subject_type
                and totals.subject = drift_references.subject

        where
            drift_references.part in ('point', 'bin')
            and drift_references.value is not null

    ) as both_sides

    group by 1, 2

),

stepped_values as (

    select
        subject_number,
        value,
        sum(user_count) over (
            partition by subject_number order by value
            rows between unbounded preceding and current row
        ) as users_so_far,
        sum(reference_count) over (
            partition by subject_number order by value
            rows between unbounded preceding and current row
        ) as references_so_far,
        lead(value) over (partition by subject_number order by value) - value as width

    from merged_values

),

distances as (

    select
        totals.subject_number,

        max(abs(
            {{ churn_scoring.quotient(
                'stepped_values.users_so_far', 'totals.current_known_count'
            ) }}
            - {{ churn_scoring.quotient(
                'stepped_values.references_so_far', 'totals.reference_known_count'
            ) }}
        )) as kolmogorov_smirnov,
        sum(coalesce(stepped_values.width, 0) * abs(
            {{ churn_scoring.quotient(
                'stepped_values.users_so_far', 'totals.current_known_count'
            ) }}
            - {{ churn_scoring.quotient(
                'stepped_values.references_so_far', 'totals.reference_known_count'
            ) }}
        )) as wasserstein_distance

    from totals

    inner join stepped_values
        on totals.subject_number = stepped_values.subject_number

    group by 1

),

below_bounds as (

    select
        totals.subject_number,
        totals.current_count,
        totals.reference_count,
        bins.position,
        bins.row_count as reference_in_bin,
        coalesce(stepped_values.users_so_far, totals.current_known_count)
            as users_below

    from totals

    inner join drift_references as bins
        on
            totals.bundle_id = bins.bundle_id
            and totals.subject_type = bins.subject_type
            and totals.subject = bins.subject
            and bins.part = 'bin'

    left join stepped_values
        on
            totals.subject_number = stepped_values.subject_number
            and bins.value = stepped_values.value

),

bins as (

    select
        subject_number,
        current_count,
        reference_count,
        reference_in_bin,
        users_below - lag(users_below, 1, 0) over (
            partition by subject_number order by position
        ) as current_in_bin

    from below_bounds

    union all

    {# Unknown values are a bin of their own, where there are any. #}
    select
        subject_number,
        current_count,
        reference_count,
        reference_count - reference_known_count as reference_in_bin,
        current_count - current_known_count as current_in_bin

    from totals

    where
        reference_count > reference_known_count
        or current_count > current_known_count

),

counted_bins as (

    select
        *,
        count(*) over (partition by subject_number) as bin_count

    from bins

),

indices as (

    select
        subject_number,
        bin_count,

        sum({{ churn_scoring.smoothed_psi_term(
            'current_in_bin', 'current_count', 'reference_in_bin', 'reference_count',
            'bin_count'
        ) }}) as population_stability_index

    from counted_bins

    group by 1, 2

),

value_drift as (

    select
        totals.*,
        indices.bin_count,
        indices.population_stability_index,
        distances.kolmogorov_smirnov,
        distances.wasserstein_distance

    from totals

    inner join indices
        on totals.subject_number = indices.subject_number

    left join distances
        on totals.subject_number = distances.subject_number

)
{% endmacro %}
