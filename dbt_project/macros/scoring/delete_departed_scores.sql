{#
    Post-hook of churn_scores: removes users who are no longer in the population of the
    cutoff, whichever model scored them: erased, or of a data set that was replaced. It
    runs in the transaction of the build. Not on `--empty` builds, whose churn_examples
    says nothing about who left.
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
    {%- endif %}
{% endmacro %}
