"""Columns of the tables that the health report reads."""

SCHEMAS = {
    "churn_models": "bundle_id varchar, stage varchar, stage_reason varchar, run_id varchar, "
    "snapshot_id varchar, model_kind varchar, encoder varchar, training_row_count bigint, "
    "training_base_rate double, test_auroc double, test_average_precision double, "
    "test_brier_score double, test_calibration_error double, is_champion boolean, "
    "first_training_cutoff_date date, last_training_cutoff_date date, trained_until_date date, "
    "test_cutoff_date date, stage_since timestamp, created_at timestamp",
    "churn_model_log": "log_sequence bigint, bundle_id varchar, moved_by varchar, "
    "from_stage varchar, to_stage varchar, reason varchar, checks_json varchar, "
    "is_override boolean, moved_at timestamp",
    "churn_model_performance": "bundle_id varchar, user_count bigint, churned_count bigint, "
    "base_rate double, mean_probability double, auroc double, average_precision double, "
    "brier_score double, log_loss double, calibration_error double, lift_top_decile double, "
    "flagged_count bigint, flagged_precision double, flagged_recall double, "
    "changed_label_count bigint, is_out_of_time boolean, cutoff_date date",
    "churn_calibration_bins": "bundle_id varchar, bin_number integer, bin_low double, "
    "bin_high double, user_count bigint, mean_probability double, observed_rate double, "
    "cutoff_date date",
    "churn_score_outcomes": "user_id varchar, bundle_id varchar, risk_tier varchar, "
    "churn_probability double, label_change_count integer, is_flagged boolean, "
    "is_churned boolean, first_is_churned boolean, is_out_of_time boolean, cutoff_date date, "
    "horizon_end_date date, scored_at timestamp, recorded_at timestamp, "
    "label_changed_at timestamp",
    "churn_scores": "user_id varchar, bundle_id varchar, risk_tier varchar, "
    "churn_probability double, is_flagged boolean, cutoff_date date, scored_at timestamp",
    "churn_scores_current": "user_id varchar, bundle_id varchar, risk_tier varchar, "
    "churn_probability double, is_flagged boolean, cutoff_date date, scored_at timestamp",
    "churn_unscorable": "user_id varchar, bundle_id varchar, input_hash varchar, reason varchar, "
    "column_name varchar, value varchar, detail varchar, cutoff_date date, noted_at timestamp",
    "churn_score_drift": "bundle_id varchar, subject_type varchar, subject varchar, "
    "severity varchar, population_stability_index double, kolmogorov_smirnov double, "
    "wasserstein_distance double, reference_mean double, current_mean double, "
    "reference_count bigint, current_count bigint, deciding_metric varchar, "
    "deciding_value double, deciding_limit double, is_window_filling boolean, cutoff_date date",
    "churn_base_rate_changes": "bundle_id varchar, user_count bigint, reference_base_rate double, "
    "expected_base_rate double, observed_base_rate double, explained_change double, "
    "unexplained_change double, cutoff_date date",
    "churn_event_volumes": "event_type varchar, severity varchar, reason varchar, "
    "event_count bigint, expected_low double, expected_high double, event_date date",
    "churn_score_movers": "user_id varchar, bundle_id varchar, previous_bundle_id varchar, "
    "main_cause varchar, churn_probability double, previous_churn_probability double, "
    "probability_change double, behaviour_effect double, model_effect double, "
    "calibration_effect double, change_rank bigint, risk_tier varchar, "
    "previous_risk_tier varchar, top_reason varchar, unsplit_reason varchar, "
    "cutoff_date date, previous_cutoff_date date",
    "churn_shadow_comparisons": "bundle_id varchar, champion_bundle_id varchar, "
    "user_count bigint, rank_correlation double, mean_probability double, "
    "champion_mean_probability double, tier_flip_count bigint, tier_flip_share double, "
    "flag_flip_count bigint, mean_absolute_change double, cutoff_date date",
    "int_data_bounds": "accepted_event_count bigint, qualifying_event_count bigint, "
    "first_event_date date, newest_event_date date, data_end_date date",
}  # fmt: skip
