{# Picks the profile columns and writes each as text: as a word list and as JSON. #}
{%- set relation = churn_scoring.raw_relation('users') -%}
{%- set columns = churn_scoring.raw_columns('users', relation) -%}
{%- set profile_columns = churn_scoring.profile_columns(relation) -%}
{%- set words, fields, counts = [], [], [] -%}
{%- for column in profile_columns -%}
    {%- set value = 'value_' ~ loop.index -%}
    {%- set name = dbt.string_literal(dbt.escape_single_quotes(column['name'])) -%}
    {%- do words.append(
        "coalesce(" ~ churn_scoring.word_text(name) ~ " || ' ' || nullif("
        ~ churn_scoring.word_text(value) ~ ", '') || ' ', '')"
    ) -%}
    {%- do fields.append(
        churn_scoring.json_string(name) ~ " || ': ' || coalesce("
        ~ churn_scoring.json_string(value) ~ ", 'null')"
    ) -%}
    {%- do counts.append('case when ' ~ value ~ ' is null then 0 else 1 end') -%}
{%- endfor -%}

with

{% if relation is not none -%}
raw_users as (

    select * from {{ relation }}

),

{% endif -%}
mapped as (

    select
        {{ churn_scoring.clean_text(
            churn_scoring.raw_value(columns.get('user_id'), true)
        ) }}
            as user_id
        {%- for column in profile_columns %},
        {{ churn_scoring.profile_value(column) }} as value_{{ loop.index }}
        {%- endfor %}

    {% if relation is not none -%}
    from raw_users
    {%- else -%}
    where false
    {%- endif %}

),

profiled as (

    select
        user_id,
        {{ churn_scoring.clean_text(words | join(' || ')) if words
            else 'cast(null as ' ~ dbt.type_string() ~ ')' }} as profile_text,
        '{' || {{ fields | join("\n        || ', ' || ") if fields else "''" }} || '}'
            as profile_json,
        cast({{ counts | join(' + ') if counts else '0' }}
            as {{ churn_scoring.type_double() }}) as profile_field_count

    from mapped

)

select * from profiled
