with

transitions as (

    select
        log_sequence,
        bundle_id,
        moved_by,
        from_stage,
        to_stage,
        reason,
        checks_json,
        is_override,
        moved_at

    from {{ ref('int_model_transitions') }}

)

select * from transitions
