{#
    The feature columns in order. Their one home is the YAML of churn_examples: the
    columns with a meta feature_group. Empty while dbt only parses.
#}
{% macro feature_columns() %}
    {{ return(churn_scoring.feature_bounds().keys() | list) }}
{% endmacro %}
