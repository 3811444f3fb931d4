with

checked_events as (

    select * from {{ ref('stg_churn__events_checked') }}

    where reject_reason is not null

),

final as (

    select
        event_key,
        {% for name in churn_scoring.event_column_names() -%}
        raw_{{ name }} as {{ name }},
        {% endfor -%}
        reject_reason

    from checked_events

)

select * from final
