{# A table: what is exported is what this build read, wherever the raw file is. #}
{{ config(materialized='table') }}

with

mapped_users as (

    select * from {{ ref('base_churn__users') }}

    where user_id is not null

),

{# Rows that tie on the order are the same row. #}
numbered as (

    select
        *,

        row_number() over (
            partition by user_id
            order by profile_field_count desc, profile_json asc
        ) as copy_number

    from mapped_users

),

final as (

    select
        user_id,
        coalesce(profile_text, '') as profile_text,
        profile_json,
        profile_field_count

    from numbered

    where copy_number = 1

)

select * from final
