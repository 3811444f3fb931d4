{{ config(
    materialized='incremental',
    incremental_strategy='append',
    on_schema_change='sync_all_columns',
    pre_hook="{{ churn_scoring.delete_stale_cutoffs() }}"
) }}

{#- Detail fades with age: words of the newest visits, half as many of the next. -#}
{%- set full_visits = 4 -%}
{%- set half_visits = 8 -%}
{%- set max_visits = churn_scoring.get_churn_var('max_visits') -%}

with

stale_cutoffs as (

    {{ churn_scoring.select_stale_cutoffs() }}

),

standings as (

    select standings.*

    from {{ ref('int_standings_serialized_to_text') }} as standings

    inner join stale_cutoffs
        on standings.cutoff_date = stale_cutoffs.cutoff_date

),

visits as (

    select * from {{ ref('int_visits_worded') }}

),

{# The newest visits of the observation window, newest first. #}
recent_visits as (

    select
        standings.user_id,
        standings.cutoff_date,
        standings.has_only_category,

        visits.event_date,
        visits.gap_words,
        visits.kind_words,
        visits.full_words,
        visits.half_words,
        visits.full_item_words,
        visits.half_item_words,
        standings.newest_visit_number - visits.visit_number + 1 as visit_position,
        {{ churn_scoring.visit_size('visits', 'standings') }} as visit_size

    from standings

    inner join visits
        on
            standings.user_id = visits.user_id
            and standings.newest_visit_number - {{ max_visits }} < visits.visit_number
            and standings.newest_visit_number >= visits.visit_number
            and {{ churn_scoring.in_observation_window(
                'visits.event_date', 'standings.cutoff_date'
            ) }}

),

worded as (

    select
        user_id,
        cutoff_date,
        visit_position,

        case
            when visit_position = 1
                then {{ churn_scoring.bucketize(
                    dbt.datediff('event_date', 'cutoff_date', 'day'), 'days'
                ) }}
            else gap_words
        end
        || kind_words
        || case
            when visit_size < 0.33 then ' tiny'
            when visit_size < 0.67 then ' small'
            when visit_size < 1.5 then ''
            when visit_size < 3 then ' large'
            when visit_size >= 3 then ' huge'
            else ''
        end
        || case
            when visit_position > {{ half_visits }} then ''
            when visit_position > {{ full_visits }} and has_only_category
                then half_item_words
            when visit_position > {{ full_visits }} then half_words
            when has_only_category then full_item_words
            else full_words
        end as visit_words

    from recent_visits

),

joined as (

    select
        user_id,
        cutoff_date,
        {{ dbt.listagg('visit_words', "' '", 'order by visit_position') }}
            as visits_text

    from worded

    group by 1, 2

),

serialized as (

    select
        standings.user_id,
        standings.cutoff_date,
        standings.input_fingerprint,
        standings.standing_text || coalesce(' ' || joined.visits_text, '')
            as behavior_text

    from standings

    left join joined
        on
            standings.user_id = joined.user_id
            and standings.cutoff_date = joined.cutoff_date

)

select * from serialized
