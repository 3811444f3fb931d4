{{ config(severity='warn', meta={'prints': 'message'}) }}

{#
    The newest complete day of events is not older than churn__max_data_age_days. What
    becomes of older data says churn__stale_data: with `fail` this query fails, and
    `dbt build` then scores nobody.
#}
{%- set mode = churn_scoring.get_churn_var('stale_data') -%}

select message

from {{ ref('int_data_freshness') }}

where
    is_stale
    {% if mode == 'allow' -%}
    and false
    {%- elif mode == 'fail' -%}
    and {{ churn_scoring.raise_error_if('is_stale', 'message') }} is null
    {%- endif %}
