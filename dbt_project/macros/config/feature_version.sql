{#
    Version of the feature SQL. Raise it when a feature's definition changes: it is part
    of every cutoff's fingerprint, so the next build recomputes all cutoffs.
#}
{% macro feature_version() %}
    {% do return(1) %}
{% endmacro %}
