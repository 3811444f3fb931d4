{#
    A key word and its value, ' last 12', or '' when the value is null: words of the
    text carry the blank before them, so that sections join without separators.
#}
{% macro keyed_word(key, value) -%}
    coalesce(' {{ key }} ' || {{ value }}, '')
{%- endmacro %}
