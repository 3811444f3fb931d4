{#
    A list of the words in a text: lower case, NFC, runs of letters, marks and digits of
    any script that start with a letter or digit. Dropped: words of one byte, numbers,
    and words that say nothing on their own. A word is cut at 24 characters.
#}
{% macro text_words(column) %}
    {{ return(adapter.dispatch('text_words', 'churn_scoring')(column)) }}
{% endmacro %}

{% macro duckdb__text_words(column) -%}
    list_transform(
        list_filter(
            regexp_extract_all(
                lower(nfc_normalize({{ column }})),
                '[\p{L}\p{N}][\p{L}\p{M}\p{N}]*'
            ),
            lambda word: strlen(word) > 1
            and not regexp_full_match(word, '\p{N}+')
            and word not in (
                'and', 'the', 'of', 'with', 'for', 'in', 'on', 'to', 'by', 'or'
            )
        ),
        lambda word: left(word, 24)
    )
{%- endmacro %}
