{%- set data_end_date = churn_scoring.get_churn_var('data_end_date') -%}
{%- set wanted_types = churn_scoring.get_churn_var('qualifying_event_types')
    | join(', ') -%}

with

events as (

    select
        event_type,
        event_date

    from {{ ref('stg_churn__events') }}

),

event_types as (

    select
        event_type,

        count(*) as event_count,
        min(event_date) as first_event_date,
        max(event_date) as newest_event_date

    from events

    group by 1

),

summarised as (

    select
        coalesce(cast(sum(event_count) as {{ dbt.type_bigint() }}), 0)
            as accepted_event_count,
        coalesce(cast(sum(
            case when {{ churn_scoring.is_qualifying_event('event_type') }}
                then event_count end
        ) as {{ dbt.type_bigint() }}), 0) as qualifying_event_count,
        substr({{ dbt.listagg('event_type', "', '", 'order by event_type') }}, 1, 500)
            as seen_event_types,

        min(first_event_date) as first_event_date,
        max(newest_event_date) as newest_event_date

    from event_types

),

bounded as (

    select
        accepted_event_count,
        qualifying_event_count,
        seen_event_types,

        first_event_date,
        newest_event_date,
        {% if data_end_date == 'auto' -%}
        newest_event_date as data_end_date
        {%- else -%}
        cast('{{ data_end_date }}' as date) as data_end_date
        {%- endif %}

    from summarised

),

checked as (

    select * from bounded

    {%- if not flags.EMPTY %}

    where
        {{ churn_scoring.raise_error_if(
            'accepted_event_count = 0',
            "'churn__events_relation / churn__events_path: no event was accepted ('"
            ~ " || accepted_event_count || '); the reasons are in"
            ~ " stg_churn__rejected_events; load events, or fix churn__event_columns'"
        ) }} is null
        and {{ churn_scoring.raise_error_if(
            'qualifying_event_count = 0',
            "'churn__qualifying_event_types: got "
            ~ dbt.escape_single_quotes(wanted_types)
            ~ ", but no event is of these types; event types seen: '"
            ~ " || seen_event_types || '; name at least one of those'"
        ) }} is null
        and {{ churn_scoring.raise_error_if(
            'data_end_date <= first_event_date or data_end_date > '
            ~ churn_scoring.shift_date('newest_event_date', 1),
            "'churn__data_end_date: got ' || cast(data_end_date as "
            ~ dbt.type_string() ~ ") || '; allowed: after the first event ('"
            ~ " || cast(first_event_date as " ~ dbt.type_string()
            ~ ") || ') and at most one day after the newest ('"
            ~ " || cast(newest_event_date as " ~ dbt.type_string()
            ~ ") || '); with less than two days of events there is nothing to"
            ~ " learn from'"
        ) }} is null
    {%- endif %}

),

final as (

    select
        accepted_event_count,
        qualifying_event_count,
        first_event_date,
        newest_event_date,
        data_end_date

    from checked

)

select * from final
