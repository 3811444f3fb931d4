with

models as (

    select
        bundle_id,
        stage,
        stage_reason,
        run_id,
        snapshot_id,
        model_kind,
        encoder,
        training_row_count,
        training_base_rate,
        test_auroc,
        test_average_precision,
        test_brier_score,
        test_calibration_error,
        is_champion,
        first_training_cutoff_date,
        last_training_cutoff_date,
        trained_until_date,
        test_cutoff_date,
        stage_since,
        created_at

    from {{ ref('int_models_registered') }}

)

select * from models
