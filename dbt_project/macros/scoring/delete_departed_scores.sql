{#
    Post-hook of churn_scores: at the score cutoff, removes users who are no longer in
    the population there, whichever model scored them. It runs in the transaction of the
    build. Not on `--empty` builds, whose churn_examples says nothing about who left.
#}
{% macro delete_departed_scores() %}
    {%- if execute and is_incremental() and not flags.EMPTY %}
    delete from {{ this }}
    where
        cutoff_date in (

            select spine.cutoff_date
            from {{ ref('int_cutoffs_spined') }} as spine
            where spine.is_score_cutoff

        )
        and not exists (

            select 1
            from {{ ref('churn_examples') }} as examples
            where
                examples.user_id = {{ this }}.user_id
                and examples.cutoff_date = {{ this }}.cutoff_date

        )
    {%- endif %}
{% endmacro %}
