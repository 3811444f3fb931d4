{#
    The days that churn_event_volumes judges and those it compares them with, empty ones
    too: neither the newest, which may still be going on, nor those that late events are
    waited for.
#}
{%- set limits = churn_scoring.event_volume_limits() -%}
{%- set reference_days = 7 * limits['reference_weeks'] + 6 -%}
{%- set num_days = limits['judged_days'] + reference_days -%}

with

events as (

    select
        event_type,
        event_date

    from {{ ref('stg_churn__events') }}

),

bounds as (

    select
        {{ churn_scoring.mature_until_date('data_end_date') }} as end_date
    from {{ ref('int_data_bounds') }}

),

numbers as (

    {{ dbt.generate_series(num_days) }}

),

dates as (

    select
        {{ churn_scoring.shift_date('bounds.end_date', '-numbers.generated_number') }}
            as event_date

    from bounds

    cross join numbers

),

day_counts as (

    select
        event_type,
        event_date,

        count(*) as event_count

    from events

    group by 1, 2

),

event_types as (

    select
        event_type,

        min(event_date) as first_event_date,
        max(event_date) as newest_event_date

    from day_counts

    group by 1

),

spined as (

    select
        event_types.event_type,
        event_types.first_event_date,
        dates.event_date

    from event_types

    inner join dates
        on event_types.first_event_date <= dates.event_date

    cross join bounds

    {# A type that came to its end before all of them is history. #}
    where
        event_types.newest_event_date
        >= {{ churn_scoring.shift_date('bounds.end_date', -num_days) }}

),

counted as (

    select
        spined.event_type,
        coalesce(day_counts.event_count, 0) as event_count,
        spined.first_event_date,
        spined.event_date

    from spined

    left join day_counts
        on
            spined.event_type = day_counts.event_type
            and spined.event_date = day_counts.event_date

),

summed as (

    select
        event_type,
        event_count,

        sum(event_count) over (
            partition by event_type order by event_date
            rows between 6 preceding and current row
        ) as week_event_count,
        sum(event_count) over (
            partition by event_type order by event_date
            rows between 13 preceding and current row
        ) as fortnight_event_count,

        first_event_date,
        event_date

    from counted

),

final as (

    select
        event_type,

        cast(event_count as {{ dbt.type_bigint() }}) as event_count,
        cast(week_event_count as {{ dbt.type_bigint() }}) as week_event_count,
        cast(fortnight_event_count as {{ dbt.type_bigint() }}) as fortnight_event_count,
        {# In square roots a count's spread does not grow with the count. #}
        sqrt(event_count + 0.375) as event_root,
        sqrt(week_event_count + 0.375) as week_root,

        event_date
        >= {{ churn_scoring.shift_date('first_event_date', reference_days) }}
        and event_date >= (

            select {{ churn_scoring.shift_date(
                'bounds.end_date', -limits['judged_days']
            ) }}
            from bounds

        ) as has_reference,
        event_date

    from summed

)

select * from final
