{#
    Whose scores of a cutoff were published stands nowhere else once the champion
    changes: a full refresh keeps this table. It is noted when the cutoff is scored; for
    a cutoff that was scored while nobody noted it, by the registry's log.
#}
{{ config(
    materialized='incremental',
    incremental_strategy='delete+insert',
    unique_key='cutoff_date',
    on_schema_change='append_new_columns',
    full_refresh=false
) }}

with

scored as (

    select
        cutoff_date,
        bundle_id,

        max(scored_at) as last_scored_at

    from {{ ref('churn_scores') }}

    group by 1, 2

),

score_cutoff as (

    select cutoff_date from {{ ref('int_cutoffs_spined') }}
    where is_score_cutoff

),

champion as (

    select distinct bundle_id from {{ ref('int_inputs_scored') }}

),

promotions as (

    select
        bundle_id,
        moved_at

    from {{ ref('int_model_transitions') }}
    where to_stage = 'champion'

),

current_champion as (

    select
        scored.cutoff_date,
        scored.bundle_id,
        {{ churn_scoring.current_utc_timestamp() }} as noted_at

    from scored

    inner join score_cutoff
        on scored.cutoff_date = score_cutoff.cutoff_date

    inner join champion
        on scored.bundle_id = champion.bundle_id

),

unnoted as (

    select
        scored.*,
        max(scored.last_scored_at) over (
            partition by scored.cutoff_date
        ) as cutoff_scored_at

    from scored

    where
        scored.cutoff_date not in (

            select current_champion.cutoff_date from current_champion

        )
        {%- if is_incremental() %}
        and scored.cutoff_date not in (

            select noted.cutoff_date from {{ this }} as noted

        )
        {%- endif %}

),

{# The last one promoted before the cutoff was last scored. #}
ranked as (

    select
        unnoted.cutoff_date,
        unnoted.bundle_id,
        unnoted.cutoff_scored_at as noted_at,
        row_number() over (
            partition by unnoted.cutoff_date
            order by
                promotions.moved_at desc nulls last,
                unnoted.last_scored_at desc,
                unnoted.bundle_id asc
        ) as choice

    from unnoted

    left join promotions
        on
            unnoted.bundle_id = promotions.bundle_id
            and unnoted.cutoff_scored_at >= promotions.moved_at

),

champions as (

    select
        cutoff_date,
        bundle_id,
        noted_at

    from current_champion

    union all

    select
        cutoff_date,
        bundle_id,
        noted_at

    from ranked
    where choice = 1

),

new_champions as (

    select
        champions.bundle_id,
        champions.cutoff_date,
        champions.noted_at

    from champions

    {% if is_incremental() -%}
    left join {{ this }} as noted
        on
            champions.cutoff_date = noted.cutoff_date
            and champions.bundle_id = noted.bundle_id

    where noted.cutoff_date is null
    {%- endif %}

)

select * from new_champions
