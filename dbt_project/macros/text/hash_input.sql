{#
    The md5 of everything a model sees of a row: all features in order, the text and the
    reviews, with a separator that none of them can contain. `features` is the alias of
    the relation with the feature columns.
#}
{% macro hash_input(behavior_text, review_text, features) -%}
    {%- set parts = [] -%}
    {%- for name in churn_scoring.feature_columns() -%}
        {%- do parts.append(
            "coalesce(cast(" ~ features ~ "." ~ name ~ " as " ~ dbt.type_string()
            ~ "), '')"
        ) -%}
    {%- endfor -%}
    {%- do parts.append(behavior_text) -%}
    {%- do parts.append("coalesce(" ~ review_text ~ ", '')") -%}
    {#- One call: a chain of || copies the growing text once per feature. -#}
    {{ dbt.hash("concat_ws(chr(31), " ~ parts | join(", ") ~ ")") }}
{%- endmacro %}
