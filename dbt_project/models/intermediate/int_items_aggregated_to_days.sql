with

events as (

    select
        user_id,
        coalesce(item_id, item_name) as item_key,
        item_name,
        event_date,

        {{ churn_scoring.exact_units('amount') }} as amount_units

    from {{ ref('stg_churn__events') }}

    where event_role != 'campaign'

),

aggregated as (

    select
        user_id,
        item_key,
        event_date,

        min(item_name) as item_name,
        count(*) as event_count,
        coalesce(sum(amount_units), 0) as amount_units

    from events

    where item_key is not null

    group by 1, 2, 3

)

select * from aggregated
