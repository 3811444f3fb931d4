{#
    A day is compared with the same weekday of the weeks before, and its week with those
    weeks; what was seen later changes no verdict. See event_volume_limits.
#}
{%- set limits = churn_scoring.event_volume_limits() -%}
{%- set reference_days = 7 * limits['reference_weeks'] -%}
{%- set days_before = dbt.datediff('earlier.event_date', 'judged.event_date', 'day') -%}

with

days as (

    select * from {{ ref('int_event_types_counted_to_days') }}

),

newest as (

    select max(event_date) as newest_date from days

),

judged as (

    select
        event_type,
        event_date

    from days

    where has_reference

),

compared as (

    select
        judged.event_type,
        judged.event_date,
        mod({{ days_before }}, 7) as weekday_distance,
        earlier.event_count,
        earlier.event_root,
        earlier.week_root

    from judged

    inner join days as earlier
        on
            judged.event_type = earlier.event_type
            and judged.event_date > earlier.event_date
            and {{ churn_scoring.shift_date('judged.event_date', -reference_days) }}
            <= earlier.event_date

),

{# A weekday without any event is a closed one and says nothing about the spread. #}
weekdays as (

    select
        event_type,
        event_date,
        weekday_distance,

        max(event_count) > 0 as is_open,
        {{ churn_scoring.quantile('event_root', 0.5) }} as centre,
        {{ churn_scoring.quantile('week_root', 0.5) }} as week_centre

    from compared

    group by 1, 2, 3

),

spreads as (

    select
        compared.event_type,
        compared.event_date,

        count(case when compared.event_count > 0 then 1 end)
        / cast(count(*) as {{ churn_scoring.type_double() }}) as active_share,
        {{ churn_scoring.quantile(
            'abs(compared.event_root - weekdays.centre)', limits['spread_quantile']
        ) }} as deviation

    from compared

    inner join weekdays
        on
            compared.event_type = weekdays.event_type
            and compared.event_date = weekdays.event_date
            and compared.weekday_distance = weekdays.weekday_distance

    where weekdays.is_open

    group by 1, 2

),

week_spreads as (

    select
        compared.event_type,
        compared.event_date,

        max(weekdays.centre) as centre,
        max(weekdays.week_centre) as week_centre,
        {{ churn_scoring.quantile(
            'abs(compared.week_root - weekdays.week_centre)', 0.5
        ) }} as week_deviation

    from compared

    inner join weekdays
        on
            compared.event_type = weekdays.event_type
            and compared.event_date = weekdays.event_date
            and compared.weekday_distance = weekdays.weekday_distance

    where compared.weekday_distance = 0

    group by 1, 2

),

{#
    Of a normal distribution, 80 % lie within 1.2816 and 50 % within 0.6745 spreads. The
    centres are fitted to the same days, which makes deviations a tenth too small.
#}
spread as (

    select
        week_spreads.event_type,
        week_spreads.event_date,
        week_spreads.centre,
        week_spreads.week_centre,
        coalesce(spreads.active_share, 0) as active_share,
        greatest(
            {{ limits['min_spread'] }}, coalesce(1.1 * spreads.deviation / 1.2816, 0)
        ) as day_spread,
        greatest(
            {{ limits['min_spread'] }}, coalesce(1.1 * spreads.deviation / 1.2816, 0),
            1.1 * week_spreads.week_deviation / 0.6745
        ) as week_spread

    from week_spreads

    left join spreads
        on
            week_spreads.event_type = spreads.event_type
            and week_spreads.event_date = spreads.event_date

),

ranged as (

    select
        event_type,
        event_date,
        {{ churn_scoring.count_range(
            'centre', 'day_spread', limits['day_warn'],
            'expected_low', 'expected_high'
        ) }},
        {{ churn_scoring.count_range(
            'week_centre', 'week_spread', limits['week_warn'],
            'expected_week_low', 'expected_week_high'
        ) }},
        {{ churn_scoring.count_range(
            'week_centre', 'week_spread', limits['week_error'],
            'tolerated_week_low', 'tolerated_week_high'
        ) }}

    from spread

    where
        power(week_centre, 2) - 0.375 >= {{ limits['min_week_count'] }}
        and active_share >= {{ limits['min_active_share'] }}

),

reasoned as (

    select
        days.event_type,
        days.event_count,
        ranged.expected_low,
        ranged.expected_high,
        days.week_event_count,
        ranged.expected_week_low,
        ranged.expected_week_high,
        days.event_date,

        {# The first rule that holds names the reason; the first three are errors. #}
        case
            when ranged.event_type is null then null
            when days.fortnight_event_count = 0 then 'silent'
            when days.week_event_count < ranged.tolerated_week_low
                then 'week_far_below'
            when days.week_event_count > ranged.tolerated_week_high
                then 'week_far_above'
            when days.event_count < ranged.expected_low then 'day_below'
            when days.event_count > ranged.expected_high then 'day_above'
            when days.week_event_count < ranged.expected_week_low then 'week_below'
            when days.week_event_count > ranged.expected_week_high then 'week_above'
        end as reason

    from days

    cross join newest

    left join ranged
        on
            days.event_type = ranged.event_type
            and days.event_date = ranged.event_date

    where
        days.event_date > {{ churn_scoring.shift_date(
            'newest.newest_date', -limits['judged_days']
        ) }}

),

final as (

    select
        event_type,
        case
            when reason in ('silent', 'week_far_below', 'week_far_above') then 'error'
            when reason is not null then 'warn'
            else 'ok'
        end as severity,
        reason,
        event_count,
        expected_low,
        expected_high,
        week_event_count,
        expected_week_low,
        expected_week_high,
        event_date

    from reasoned

)

select * from final
