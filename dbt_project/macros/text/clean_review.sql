{#
    A review on one line: NFC, lower case, runs of white space and control characters as
    one blank, cut at max_review_chars characters.
#}
{% macro clean_review(column) %}
    {{ return(adapter.dispatch('clean_review', 'churn_scoring')(column)) }}
{% endmacro %}

{% macro duckdb__clean_review(column) -%}
    trim(
        left(
            trim(regexp_replace(
                lower(nfc_normalize({{ column }})), '[\s\p{Z}\p{C}]+', ' ', 'g'
            )),
            {{ churn_scoring.get_churn_var('max_review_chars') }}
        )
    )
{%- endmacro %}
