{#
    Aggregate that is the same for the same rows in any order: the sum of 64-bit hashes
    of a text expression. Zero over no rows. Sums of sums are sums over all rows.
#}
{% macro sum_of_hashes(expression) %}
    {{- return(adapter.dispatch('sum_of_hashes', 'churn_scoring')(expression)) -}}
{% endmacro %}


{% macro default__sum_of_hashes(expression) -%}
    coalesce(sum(cast(xxhash64({{ expression }}) as decimal(38, 0))), 0)
{%- endmacro %}


{% macro duckdb__sum_of_hashes(expression) -%}
    coalesce(sum(cast(md5_number_lower({{ expression }}) as hugeint)), 0)
{%- endmacro %}
