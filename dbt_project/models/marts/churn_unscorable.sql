with

examples as (

    select
        user_id,
        cutoff_date,
        input_hash

    from {{ ref('churn_examples') }}
    where is_score_cutoff

),

unscorable_inputs as (

    select
        input_hash,
        bundle_id,
        reason,
        column_name,
        value,
        detail,
        noted_at

    from {{ ref('int_inputs_unscorable') }}

),

{# Of the scores or, where there is none, of what could not be scored. #}
champion as (

    select bundle_id from {{ ref('int_inputs_scored') }}
    union distinct
    select bundle_id from unscorable_inputs

),

{# All users whose input has no hash share the one entry without a hash. #}
users_listed as (

    select
        examples.user_id,
        unscorable_inputs.bundle_id,
        examples.input_hash,
        unscorable_inputs.reason,
        unscorable_inputs.column_name,
        unscorable_inputs.value,
        unscorable_inputs.detail,
        examples.cutoff_date,
        unscorable_inputs.noted_at

    from examples

    inner join unscorable_inputs
        on examples.input_hash is not distinct from unscorable_inputs.input_hash

    where examples.user_id is not null

),

{# Not scored whatever the input: there is nobody to publish the score for. #}
rows_of_nobody as (

    select
        examples.user_id,
        champion.bundle_id,
        examples.input_hash,
        'null_user_id' as reason,
        'user_id' as column_name,
        cast(null as {{ dbt.type_string() }}) as value,
        'column ''user_id'': got null; allowed: text that is not null' as detail,
        examples.cutoff_date,
        cast(null as {{ dbt.type_timestamp() }}) as noted_at

    from examples

    cross join champion

    where examples.user_id is null

),

unscorable as (

    select * from users_listed
    union all
    select * from rows_of_nobody

)

select * from unscorable
