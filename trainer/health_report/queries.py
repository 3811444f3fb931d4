"""The report's queries: the columns they may rely on, and SQL with tables in braces.

Everything is small: rows per model, cutoff, subject or day, never per user, but for the movers.
"""

from __future__ import annotations

#: Days of event volumes, and cutoffs of histories, that are shown.
VOLUME_DAYS = 42
MAX_CUTOFFS = 26


def _columns(required: str, optional: str = "") -> tuple[tuple[str, ...], tuple[str, ...]]:
    return tuple(required.split()), tuple(optional.split())


#: Table -> (columns without which it is of another release, columns that may be missing).
TABLES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "churn_models": _columns(
        "bundle_id stage is_champion",
        "stage_reason stage_since created_at model_kind encoder run_id snapshot_id "
        "training_row_count training_base_rate test_auroc test_average_precision "
        "test_calibration_error last_training_cutoff_date trained_until_date test_cutoff_date",
    ),
    "churn_model_log": _columns(
        "log_sequence bundle_id from_stage to_stage",
        "moved_by reason checks_json is_override moved_at",
    ),
    "churn_model_performance": _columns(
        "bundle_id cutoff_date user_count base_rate mean_probability",
        "churned_count auroc average_precision brier_score log_loss calibration_error "
        "lift_top_decile flagged_count flagged_precision flagged_recall changed_label_count "
        "is_out_of_time",
    ),
    "churn_calibration_bins": _columns(
        "bundle_id cutoff_date bin_number user_count mean_probability observed_rate"
    ),
    "churn_score_outcomes": _columns(
        "bundle_id cutoff_date", "label_change_count is_churned first_is_churned label_changed_at"
    ),
    "churn_scores": _columns(
        "user_id bundle_id cutoff_date churn_probability", "risk_tier is_flagged scored_at"
    ),
    "churn_scores_current": _columns(
        "user_id bundle_id cutoff_date churn_probability", "risk_tier is_flagged scored_at"
    ),
    "churn_unscorable": _columns("user_id reason", "column_name cutoff_date bundle_id"),
    "churn_score_drift": _columns(
        "bundle_id subject_type subject severity cutoff_date",
        "population_stability_index kolmogorov_smirnov wasserstein_distance reference_mean "
        "current_mean reference_count current_count deciding_metric deciding_value deciding_limit "
        "is_window_filling",
    ),
    "churn_base_rate_changes": _columns(
        "bundle_id cutoff_date",
        "user_count reference_base_rate expected_base_rate observed_base_rate explained_change "
        "unexplained_change",
    ),
    "churn_event_volumes": _columns(
        "event_type event_date event_count severity", "expected_low expected_high reason"
    ),
    "churn_score_movers": _columns(
        "user_id bundle_id previous_bundle_id main_cause probability_change cutoff_date "
        "previous_cutoff_date",
        "churn_probability previous_churn_probability behaviour_effect model_effect "
        "calibration_effect change_rank risk_tier previous_risk_tier top_reason unsplit_reason",
    ),
    "churn_shadow_comparisons": _columns(
        "bundle_id champion_bundle_id cutoff_date",
        "user_count rank_correlation mean_probability champion_mean_probability tier_flip_count "
        "tier_flip_share flag_flip_count mean_absolute_change",
    ),
    "int_data_bounds": _columns("newest_event_date", "first_event_date data_end_date"),
}

_NEWEST_CUTOFFS = (
    "cutoff_date in (select distinct cutoff_date from {{{0}}} "
    f"order by cutoff_date desc limit {MAX_CUTOFFS})"
)
_HISTOGRAM = """
    select
        cutoff_date,
        cast(least(floor(churn_probability * 20), 19) as integer) as bin,
        count(*) as user_count
    from {0}
    group by 1, 2
    order by 1, 2
"""
_NEWEST_MOVES = (
    "(select * from {churn_score_movers} where cutoff_date = "
    "(select max(cutoff_date) from {churn_score_movers}))"
)

QUERIES: dict[str, str] = {
    "models": """
        select * from {churn_models}
        order by is_champion desc, created_at desc nulls last, bundle_id
        limit 200
    """,
    "log": "select * from {churn_model_log} order by log_sequence desc limit 200",
    "performance": f"""
        select * from {{churn_model_performance}}
        where {_NEWEST_CUTOFFS.format("churn_model_performance")}
        order by cutoff_date, bundle_id
    """,
    "bins": f"""
        select * from {{churn_calibration_bins}}
        where {_NEWEST_CUTOFFS.format("churn_calibration_bins")}
        order by cutoff_date, bundle_id, bin_number
    """,
    "late_labels": """
        select
            cutoff_date,
            bundle_id,
            count(*) as user_count,
            count(*) filter (label_change_count > 0) as changed_count,
            count(*) filter (is_churned <> first_is_churned) as other_count,
            max(label_changed_at) as changed_at
        from {churn_score_outcomes}
        group by 1, 2
        having count(*) filter (label_change_count > 0) > 0
        order by 1 desc, 2
    """,
    "scored": """
        select cutoff_date, bundle_id, count(*) as user_count, max(scored_at) as scored_at
        from {churn_scores}
        group by 1, 2
        order by 1, 2
    """,
    "current": """
        select
            count(*) as user_count,
            max(cutoff_date) as cutoff_date,
            avg(churn_probability) as mean_probability,
            count(*) filter (is_flagged) as flagged_count,
            max(scored_at) as scored_at
        from {churn_scores_current}
    """,
    "tiers": """
        select risk_tier, count(*) as user_count, min(churn_probability) as lowest_probability
        from {churn_scores_current}
        where cutoff_date = (select max(cutoff_date) from {churn_scores_current})
        group by 1
        order by 3 desc, 1
    """,
    "current_scores": _HISTOGRAM.format(
        "{churn_scores_current} where cutoff_date = "
        "(select max(cutoff_date) from {churn_scores_current})"
    ),
    "previous_scores": _HISTOGRAM.format(
        """(
            select scores.*
            from {churn_scores} as scores
            inner join (
                select bundle_id, max(cutoff_date) as cutoff_date
                from {churn_scores}
                where cutoff_date < (select max(cutoff_date) from {churn_scores_current})
                group by 1
            ) as earlier
                on scores.bundle_id = earlier.bundle_id
                and scores.cutoff_date = earlier.cutoff_date
            where scores.bundle_id = (
                select any_value(bundle_id order by cutoff_date desc) from {churn_scores_current}
            )
        )"""
    ),
    "unscorable": """
        select reason, count(distinct user_id) as user_count, any_value(column_name) as column_name
        from {churn_unscorable}
        group by 1
        order by 2 desc, 1
    """,
    "unscorable_users": "select count(distinct user_id) as user_count from {churn_unscorable}",
    "drift": f"""
        select * from {{churn_score_drift}}
        where {_NEWEST_CUTOFFS.format("churn_score_drift")}
        order by cutoff_date, bundle_id, subject_type, subject
    """,
    "base_rates": f"""
        select * from {{churn_base_rate_changes}}
        where {_NEWEST_CUTOFFS.format("churn_base_rate_changes")}
        order by cutoff_date, bundle_id
    """,
    "volumes": f"""
        select * from {{churn_event_volumes}}
        where event_date > (select max(event_date) from {{churn_event_volumes}}) - {VOLUME_DAYS}
        order by event_type, event_date
    """,
    "mover_causes": f"""
        select
            main_cause,
            max(cutoff_date) as cutoff_date,
            max(previous_cutoff_date) as previous_cutoff_date,
            count(*) as user_count,
            count(*) filter (probability_change > 0) as up_count,
            count(*) filter (probability_change < 0) as down_count,
            count(*) filter (abs(probability_change) >= 0.1) as large_count,
            avg(abs(probability_change)) as mean_absolute_change,
            avg(probability_change) as mean_change
        from {_NEWEST_MOVES}
        group by 1
        order by 4 desc, 1
    """,
    "mover_effects": f"""
        select
            count(*) as user_count,
            avg(abs(behaviour_effect)) as behaviour,
            avg(abs(model_effect)) as model,
            avg(abs(calibration_effect)) as calibration
        from {_NEWEST_MOVES}
    """,
    "tier_moves": """
        select
            coalesce(movers.previous_risk_tier, earlier.risk_tier) as previous_tier,
            coalesce(movers.risk_tier, later.risk_tier) as tier,
            count(*) as user_count
        from {churn_score_movers} as movers
        left join {churn_scores} as later
            on movers.user_id = later.user_id
            and movers.bundle_id = later.bundle_id
            and movers.cutoff_date = later.cutoff_date
        left join {churn_scores} as earlier
            on movers.user_id = earlier.user_id
            and movers.previous_bundle_id = earlier.bundle_id
            and movers.previous_cutoff_date = earlier.cutoff_date
        where movers.cutoff_date = (select max(cutoff_date) from {churn_score_movers})
        group by 1, 2
    """,
    "tier_order": """
        select risk_tier, avg(churn_probability) as mean_probability
        from {churn_scores}
        where risk_tier is not null
        group by 1
        order by 2 desc
    """,
    "shadows": f"""
        select * from {{churn_shadow_comparisons}}
        where {_NEWEST_CUTOFFS.format("churn_shadow_comparisons")}
        order by cutoff_date, bundle_id
    """,
    "bounds": "select * from {int_data_bounds}",
}

MOVER_QUERIES: dict[str, str] = {
    "movers": f"""
        select * from {_NEWEST_MOVES}
        order by change_rank nulls last, abs(probability_change) desc, user_id
        limit {{users}}
    """,
}
