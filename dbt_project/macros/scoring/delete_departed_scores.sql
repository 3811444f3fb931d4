{#
    Post-hook of churn_scores: removes users who are no longer in the population of the
    cutoff, whichever model scored them: erased, or of a data set that was replaced; and
    what the champion or a shadow said of an earlier input of users whose present one it
    cannot score. It runs in the transaction of the build. Not on `--empty` builds, whose
    churn_examples says nothing about who left.
#}
{% macro delete_departed_scores() %}
    {%- if execute and is_incremental() and not flags.EMPTY %}
    delete from {{ this }}
    where
        not exists (

            select 1
            from {{ ref('churn_examples') }} as examples
            where
                examples.user_id = {{ this }}.user_id
                and examples.cutoff_date = {{ this }}.cutoff_date

        )
        or exists (

            select 1
            from {{ ref('churn_examples') }} as examples

            inner join {{ ref('int_inputs_unscorable') }} as unscorable_inputs
                on examples.input_hash is not distinct from unscorable_inputs.input_hash

            where
                examples.is_score_cutoff
                and examples.user_id = {{ this }}.user_id
                and examples.cutoff_date = {{ this }}.cutoff_date
                and unscorable_inputs.bundle_id = {{ this }}.bundle_id

        )
        {%- set shadows = ref('int_inputs_scored_by_shadows') %}
        {%- if run_query('select 1 from ' ~ shadows ~ ' limit 1') | length %}
        or exists (

            select 1
            from {{ ref('churn_examples') }} as examples

            where
                examples.is_score_cutoff
                and examples.user_id = {{ this }}.user_id
                and examples.cutoff_date = {{ this }}.cutoff_date
                and examples.input_hash is distinct from {{ this }}.input_hash
                and {{ this }}.bundle_id in (

                    select shadow_inputs.bundle_id
                    from {{ shadows }} as shadow_inputs

                )

        )
        {%- endif %}
    {%- endif %}
{% endmacro %}
