{#
    Which models scored a cutoff as shadows, and beside whom, stands nowhere else once
    they are moved: a full refresh keeps this table.
#}
{{ config(
    materialized='incremental',
    incremental_strategy='delete+insert',
    unique_key=['cutoff_date', 'bundle_id'],
    on_schema_change='append_new_columns',
    full_refresh=false
) }}

with

score_cutoff as (

    select cutoff_date from {{ ref('int_cutoffs_spined') }}
    where is_score_cutoff

),

champion as (

    select distinct bundle_id from {{ ref('int_inputs_scored') }}

),

shadows as (

    select distinct bundle_id from {{ ref('int_inputs_scored_by_shadows') }}

),

beside as (

    select
        shadows.bundle_id,
        champion.bundle_id as champion_bundle_id,
        score_cutoff.cutoff_date,
        {{ churn_scoring.current_utc_timestamp() }} as noted_at

    from shadows

    cross join score_cutoff

    inner join champion
        on shadows.bundle_id <> champion.bundle_id

),

new_shadows as (

    select beside.* from beside

    {% if is_incremental() -%}
    left join {{ this }} as noted
        on
            beside.cutoff_date = noted.cutoff_date
            and beside.bundle_id = noted.bundle_id
            and beside.champion_bundle_id = noted.champion_bundle_id

    where noted.cutoff_date is null
    {%- endif %}

)

select * from new_shadows
