{#
    Post-hook of churn_score_outcomes: removes users who are gone from the data or from the
    population of the cutoff, outcomes whose horizon is open again because the data ends
    earlier than it did or late events are waited for longer, and what was said of an input
    that can no longer be scored. A cutoff that has left the spine takes nothing with it. It
    runs in the transaction of the build; not on `--empty` builds, whose tables say nothing
    about who left.
#}
{% macro delete_departed_outcomes() %}
    {%- if execute and is_incremental() and not flags.EMPTY %}
    delete from {{ this }}
    where
        horizon_end_date > (

            select {{ churn_scoring.mature_until_date('bounds.data_end_date') }}
            from {{ ref('int_data_bounds') }} as bounds

        )
        or not exists (

            select 1
            from (
                select distinct user_id from {{ ref('int_events_aggregated_to_days') }}
            ) as known_users
            where known_users.user_id = {{ this }}.user_id

        )
        or (
            cutoff_date in (
                select spine.cutoff_date
                from {{ ref('int_cutoffs_spined') }} as spine
            )
            and not exists (

                select 1
                from {{ ref('int_labels_matured') }} as labels
                where
                    labels.user_id = {{ this }}.user_id
                    and labels.cutoff_date = {{ this }}.cutoff_date

            )
        )
        or exists (

            select 1
            from {{ ref('churn_unscorable') }} as unscorable
            where
                unscorable.user_id = {{ this }}.user_id
                and unscorable.cutoff_date = {{ this }}.cutoff_date
                and unscorable.bundle_id = {{ this }}.bundle_id

        )
    {%- endif %}
{% endmacro %}
