{#
    Query for the outcomes of each bundle and cutoff by falling probability, users of equal
    probability as one row, with counts from the highest probability down to and with it. No
    number made from it depends on the order of the users.
#}
{% macro select_ranked_outcomes() %}
    {%- set so_far = 'over (
            partition by bundle_id, cutoff_date
            order by churn_probability desc
            rows between unbounded preceding and current row
        )' -%}
    {%- set total = 'over (partition by bundle_id, cutoff_date)' -%}
    select
        bundle_id,
        cutoff_date,
        churn_probability,
        user_count,
        churned_count,

        sum(user_count) {{ so_far }} as users_so_far,
        sum(churned_count) {{ so_far }} as churned_so_far,
        sum(user_count) {{ total }} as users_in_all

    from (

        select
            bundle_id,
            cutoff_date,
            churn_probability,

            count(*) as user_count,
            count(case when is_churned then 1 end) as churned_count

        from {{ ref('churn_score_outcomes') }}

        group by 1, 2, 3

    ) as ties
{% endmacro %}
