{{ config(severity='warn', meta={'prints': 'message'}) }}

{# No event type came unusually seldom or often in the newest week. #}
with

volumes as (

    select * from {{ ref('churn_event_volumes') }}

),

newest as (

    select max(event_date) as newest_date from volumes

),

failures as (

    select
        volumes.event_type,
        volumes.severity,
        volumes.event_date,
        volumes.severity || ': ' || volumes.event_type || ' on '
        || cast(volumes.event_date as {{ dbt.type_string() }})
        || ': ' || cast(volumes.event_count as {{ dbt.type_string() }})
        || ' events, expected '
        || cast(volumes.expected_low as {{ dbt.type_string() }}) || ' to '
        || cast(volumes.expected_high as {{ dbt.type_string() }})
        || '; ' || cast(volumes.week_event_count as {{ dbt.type_string() }})
        || ' in the week that ends with it, expected '
        || cast(volumes.expected_week_low as {{ dbt.type_string() }}) || ' to '
        || cast(volumes.expected_week_high as {{ dbt.type_string() }})
        || ' (' || volumes.reason || '); check how it is loaded' as message

    from volumes

    cross join newest

    where
        volumes.severity <> 'ok'
        and volumes.event_date > {{ churn_scoring.shift_date(
            'newest.newest_date', -churn_scoring.event_volume_limits()['tested_days']
        ) }}

)

select * from failures
