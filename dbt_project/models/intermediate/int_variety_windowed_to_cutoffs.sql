{{ config(
    materialized='incremental',
    incremental_strategy='append',
    on_schema_change='sync_all_columns',
    pre_hook="{{ churn_scoring.delete_stale_cutoffs() }}"
) }}

{#-
    Counting days per user, key and cutoff directly would need one group for each of
    them. Instead each occurrence raises the user's count of its key from the day after
    it, and lowers it again once it leaves a window. The running sums hold between two
    such changes, and a cutoff falls into exactly one of these spans.
-#}
{%- set observation_days = churn_scoring.get_churn_var('observation_days') -%}
{%- set recent_days = [90, observation_days] | min -%}
{%- set entities = {
    'category': ('int_categories_aggregated_to_days', 'category'),
    'item': ('int_items_aggregated_to_days', 'item_key'),
} -%}

with

stale_cutoffs as (

    {{ churn_scoring.select_stale_cutoffs() }}

),

population as (

    select
        users.user_id,
        users.cutoff_date,
        users.input_fingerprint

    from {{ ref('int_users_joined_to_cutoffs') }} as users

    inner join stale_cutoffs
        on users.cutoff_date = stale_cutoffs.cutoff_date

),

span as (

    select
        {{ churn_scoring.shift_date('min(cutoff_date)', -observation_days) }}
            as first_date,
        max(cutoff_date) as last_date

    from stale_cutoffs

),

{% for entity, (model, key) in entities.items() -%}
{{ entity }}_changes as (

    {% for days, change, recent_change in [
        (0, 1, 1), (recent_days, 0, -1), (observation_days, -1, 0)
    ] -%}
    select
        user_id,
        {{ key }},
        {{ churn_scoring.shift_date('event_date', days + 1) }} as from_date,
        {{ change }} as day_change,
        {{ recent_change }} as recent_day_change

    from {{ ref(model) }}

    where event_date >= (select span.first_date from span)
    {%- if not loop.last %}

    union all

    {% endif -%}
    {% endfor %}

),

{{ entity }}_sums as (

    select
        user_id,
        from_date,

        sum(day_change) over key_changes as day_count,
        sum(recent_day_change) over key_changes as recent_day_count,
        lead(from_date) over key_changes as until_date

    from {{ entity }}_changes

    where from_date <= (select span.last_date from span)

    window key_changes as (
        partition by user_id, {{ key }}
        order by from_date, day_change, recent_day_change
        rows between unbounded preceding and current row
    )

),

{{ entity }}_variety as (

    select
        {{ entity }}_sums.user_id,
        stale_cutoffs.cutoff_date,

        count(*) as {{ entity }}_count,
        count(case when {{ entity }}_sums.recent_day_count > 0 then 1 end)
            as {{ entity }}_count_90d,
        count(
            case
                when {{ entity }}_sums.recent_day_count = {{ entity }}_sums.day_count
                    then 1
            end
        ) as new_{{ entity }}_count_90d,
        sum({{ entity }}_sums.day_count) as {{ entity }}_day_count,
        sum({{ entity }}_sums.day_count * {{ entity }}_sums.day_count)
            as {{ entity }}_day_square_count,
        max({{ entity }}_sums.day_count) as top_{{ entity }}_day_count

    from {{ entity }}_sums

    inner join stale_cutoffs
        on
            {{ entity }}_sums.from_date <= stale_cutoffs.cutoff_date
            and (
                {{ entity }}_sums.until_date > stale_cutoffs.cutoff_date
                or {{ entity }}_sums.until_date is null
            )

    where {{ entity }}_sums.day_count > 0

    group by 1, 2

),

{% endfor -%}

joined as (

    select
        population.user_id,
        population.cutoff_date,
        population.input_fingerprint,

        {% for entity in entities -%}
        {{ entity }}_variety.{{ entity }}_count,
        {{ entity }}_variety.{{ entity }}_count_90d,
        {{ entity }}_variety.new_{{ entity }}_count_90d,
        {{ entity }}_variety.{{ entity }}_day_count,
        {{ entity }}_variety.{{ entity }}_day_square_count,
        {{ entity }}_variety.top_{{ entity }}_day_count
        {%- if not loop.last %},
        {% endif -%}
        {% endfor %}

    from population

    {% for entity in entities -%}
    left join {{ entity }}_variety
        on
            population.user_id = {{ entity }}_variety.user_id
            and population.cutoff_date = {{ entity }}_variety.cutoff_date
    {%- if not loop.last %}

    {% endif -%}
    {% endfor %}

)

select * from joined
