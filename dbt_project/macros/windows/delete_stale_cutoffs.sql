{#
    Pre-hook of every model that is incremental by cutoff: removes the rows of cutoffs
    that left the spine or whose inputs changed. It runs in the transaction that then
    inserts, so readers see the old rows or the new ones. An `--empty` build must not
    mistake its empty spine for cutoffs that are gone.
#}
{% macro delete_stale_cutoffs() %}
    {%- if execute and is_incremental() and not flags.EMPTY %}
    delete from {{ this }}
    where not exists (

        select 1
        from {{ ref('int_cutoffs_spined') }} as spine
        where
            spine.cutoff_date = {{ this }}.cutoff_date
            and spine.input_fingerprint = {{ this }}.input_fingerprint

    )
    {%- endif %}
{% endmacro %}
