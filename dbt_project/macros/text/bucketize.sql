{# The word for a number of 0 or more: the start of its bucket (text_bucket_bounds), or null. #}
{% macro bucketize(expression, kind) -%}
    {%- set buckets = churn_scoring.text_bucket_bounds() -%}
    {%- if kind not in buckets -%}
        {%- do exceptions.raise_compiler_error(
            "bucketize: kind is " ~ kind ~ "; allowed: " ~ (buckets | join(', '))
        ) -%}
    {%- endif -%}
    {%- set exact_until = buckets[kind]['exact_until'] -%}
    {%- set bounds = buckets[kind]['bounds'] -%}
    case
        when {{ expression }} is null then null
        when {{ expression }} < {{ exact_until + 1 }}
            then cast(cast(floor({{ expression }}) as integer) as {{ dbt.type_string() }})
        {%- for bound in bounds[1:] %}
        when {{ expression }} < {{ bound }} then '{{ bounds[loop.index0] }}'
        {%- endfor %}
        else '{{ bounds[-1] }}'
    end
{%- endmacro %}
