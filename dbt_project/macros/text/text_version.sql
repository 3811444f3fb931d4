{#
    Version of behavior_text and review_text_recent (docs/text_spec_v1.md). Raise it with
    any change of their bytes: scoring refuses a model that was trained on another one.
#}
{% macro text_version() %}
    {{ return(1) }}
{% endmacro %}
