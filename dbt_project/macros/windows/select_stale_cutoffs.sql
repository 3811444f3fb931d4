{#
    The cutoffs that the calling incremental model has to compute: those of the spine
    that it does not hold with the same input_fingerprint. On a first run: all.
#}
{% macro select_stale_cutoffs() %}
    select
        spine.cutoff_date,
        spine.input_fingerprint

    from {{ ref('int_cutoffs_spined') }} as spine

    {%- if is_incremental() %}

    where not exists (

        select 1
        from {{ this }} as built
        where
            spine.cutoff_date = built.cutoff_date
            and spine.input_fingerprint = built.input_fingerprint

    )
    {%- endif %}
{% endmacro %}
