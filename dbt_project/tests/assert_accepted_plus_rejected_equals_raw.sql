{# Every raw event is accepted or rejected, once; counted at the source itself. #}
{%- set relation = churn_scoring.raw_relation('events') -%}

with

raw_events as (

    {% if relation is not none -%}
    select count(*) as raw_count from {{ relation }}
    {%- else -%}
    select 0 as raw_count
    {%- endif %}

),

accepted_events as (

    select count(*) as accepted_count from {{ ref('stg_churn__events') }}

),

rejected_events as (

    select count(*) as rejected_count from {{ ref('stg_churn__rejected_events') }}

)

select
    raw_events.raw_count,
    accepted_events.accepted_count,
    rejected_events.rejected_count

from raw_events

cross join accepted_events

cross join rejected_events

where
    raw_events.raw_count
    <> accepted_events.accepted_count + rejected_events.rejected_count
