{{ config(severity='warn') }}

{#
    One wrong date long after all others would move the end of the data, and with it
    every cutoff: warn when more than 30 days lie between the newest event date and the
    one before it.
#}
with

event_dates as (

    select distinct event_date

    from {{ ref('stg_churn__events') }}

),

followed as (

    select
        event_date,

        lag(event_date) over (
            order by event_date
        ) as earlier_date,
        max(event_date) over () as newest_event_date

    from event_dates

)

select * from followed

where
    event_date = newest_event_date
    and {{ dbt.datediff('earlier_date', 'event_date', 'day') }} > 30
