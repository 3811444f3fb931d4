{{ config(severity='warn') }}

{# Of several rows for one user, staging keeps the one with the most filled fields. #}
select
    user_id,

    count(*) as row_count

from {{ ref('base_churn__users') }}

where user_id is not null

group by 1

having count(*) > 1
