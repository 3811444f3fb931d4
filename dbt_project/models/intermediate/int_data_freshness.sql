{{ config(materialized='view') }}

{%- set max_age_days = churn_scoring.get_churn_var('max_data_age_days') -%}

with

bounds as (

    select data_end_date from {{ ref('int_data_bounds') }}

),

dated as (

    select
        {{ churn_scoring.shift_date('data_end_date', -1) }} as newest_complete_date,
        cast({{ churn_scoring.as_of_timestamp() }} as date) as as_of_date

    from bounds

),

aged as (

    select
        {{ dbt.datediff('newest_complete_date', 'as_of_date', 'day') }}
            as data_age_days,
        newest_complete_date,
        as_of_date

    from dated

),

judged as (

    select
        data_age_days,
        coalesce(data_age_days > {{ max_age_days }}, false) as is_stale,
        newest_complete_date,
        as_of_date

    from aged

),

final as (

    select
        case
            when is_stale
                then
                    'churn__max_data_age_days: the newest complete day of events is '
                    || cast(newest_complete_date as {{ dbt.type_string() }})
                    || ', ' || cast(data_age_days as {{ dbt.type_string() }})
                    || ' days before ' || cast(as_of_date as {{ dbt.type_string() }})
                    || ' (churn__as_of); allowed: {{ max_age_days }} days; load newer'
                    || ' events, or say by churn__stale_data what becomes of scores of'
                    || ' stale data: warn, fail or allow'
        end as message,
        data_age_days,
        {{ max_age_days }} as max_data_age_days,
        is_stale,
        newest_complete_date,
        as_of_date

    from judged

)

select * from final
