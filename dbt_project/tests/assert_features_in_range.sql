{#
    Every feature is null or a finite number inside the min_value and max_value of its
    meta. One query for all of them: a test per column would take dbt far longer.
#}
with

examples as (

    select * from {{ ref('churn_examples') }}

),

failures as (

    select
        user_id,
        cutoff_date

    from examples

    where
        false
        {% for name, bounds in churn_scoring.feature_bounds().items() -%}
        or not {{ churn_scoring.is_finite(name) }}
        {% if bounds['min_value'] is not none -%}
        or {{ name }} < {{ bounds['min_value'] }}
        {% endif -%}
        {% if bounds['max_value'] is not none -%}
        or {{ name }} > {{ bounds['max_value'] }}
        {% endif -%}
        {% endfor %}

)

select * from failures
