with

users as (

    select
        user_id,
        cutoff_date

    from {{ ref('int_users_joined_to_cutoffs') }}

),

bounds as (

    select data_end_date from {{ ref('int_data_bounds') }}

),

active_days as (

    select
        user_id,
        event_date

    from {{ ref('int_events_aggregated_to_days') }}

    where is_active = 1

),

returned as (

    select distinct
        users.user_id,
        users.cutoff_date

    from users

    inner join active_days
        on
            users.user_id = active_days.user_id
            and {{ churn_scoring.in_prediction_horizon(
                'active_days.event_date', 'users.cutoff_date'
            ) }}

),

matured as (

    select
        users.user_id,
        users.cutoff_date,
        {{ churn_scoring.horizon_end_date('users.cutoff_date') }}
            <= {{ churn_scoring.mature_until_date('bounds.data_end_date') }}
            as is_label_mature,
        returned.user_id is not null as has_returned

    from users

    cross join bounds

    left join returned
        on
            users.user_id = returned.user_id
            and users.cutoff_date = returned.cutoff_date

),

labelled as (

    select
        user_id,
        cutoff_date,
        is_label_mature,

        {# Unknown, not false, while the horizon is open. #}
        case when is_label_mature then not has_returned end as is_churned

    from matured

)

select * from labelled
