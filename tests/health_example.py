"""A warehouse whose monitoring tables are made up, for tests of the health report.

Two champions one after the other, a shadow, a refused candidate, fourteen weekly cutoffs of which
ten have matured; `make_warehouse(..., kind="act")` adds what should alarm.
"""

import datetime
import functools
import json
import math

import duckdb
import numpy as np
import pyarrow as pa

from tests.health_schemas import SCHEMAS

DAY = datetime.timedelta(days=1)
WEEK = datetime.timedelta(days=7)
NEWEST_CUTOFF = datetime.date(2026, 3, 30)
CUTOFFS = [NEWEST_CUTOFF - WEEK * back for back in range(13, -1, -1)]
NUM_MATURED = 10
AS_OF = "2026-03-31 06:00:00"
CHAMPION, SHADOW, REFUSED = "7a31cafe9d02", "5ad0c1d2e3f4", "bad1bad2bad3"
OLD = "a1b2c3d4e5f6"
SETTINGS = {"gap_days": 0, "horizon_days": 28, "as_of": AS_OF}
EVENT_TYPES = {"purchase": 420, "view": 2600, "review": 35, "return": 22}
FEATURES = [
    "days_since_active", "active_days_30d", "active_days_90d", "amount_30d", "amount_90d",
    "basket_amount_mean_90d", "discount_share_90d", "view_count_30d", "view_count_90d",
    "category_count_90d", "review_count_365d", "rating_mean_365d", "return_share_90d",
    "gap_days_mean_365d", "gap_days_last_over_mean", "tenure_days",
]  # fmt: skip
TOKENS = ["visit", "dairy", "bakery", "coffee", "return"]
NUM_USERS = 400
TIERS = ((0.5, "high"), (0.25, "medium"), (0.0, "low"))
RELATIONS = {name: f'"main"."{name}"' for name in SCHEMAS}


def make_warehouse(path=":memory:", *, kind="healthy", seed=0):
    """Return a connection to a warehouse: `healthy`, `look`, `act`, or `empty` (tables only)."""
    connection = duckdb.connect(str(path))
    for name, columns in SCHEMAS.items():
        connection.execute(f"create table {name} ({columns})")
    for name, rows in _arrow_tables(kind, seed).items():
        connection.register("added", rows)
        connection.execute(f"insert into {name} by name select * from added")
        connection.unregister("added")
    return connection


@functools.cache
def _arrow_tables(kind, seed):
    """Return the rows of tables that are not empty, made once."""
    if kind == "empty":
        return {}
    made = made_up_rows(kind, np.random.default_rng(seed))
    return {name: _arrow(rows) for name, rows in made.items() if rows}


def _arrow(rows):
    names = list(dict.fromkeys(name for row in rows for name in row))
    return pa.table({name: [row.get(name) for row in rows] for name in names})


def made_up_rows(kind, rng):
    """Return rows by table."""
    scores = _scores(rng, kind)
    newest = [row for row in scores if row["cutoff_date"] == NEWEST_CUTOFF]
    current = [row for row in newest if row["bundle_id"] == CHAMPION]
    rows = {
        **_registry(kind),
        "churn_scores": scores,
        "churn_scores_current": current,
        "churn_score_movers": _movers(rng, scores),
        "churn_score_drift": _drift(rng, kind),
        "churn_base_rate_changes": _base_rates(rng),
        "churn_event_volumes": _volumes(rng, kind),
        "churn_shadow_comparisons": _shadows(rng),
        "int_data_bounds": [
            {"newest_event_date": _newest_event(kind), "data_end_date": _newest_event(kind) + DAY}
        ],
        **_outcomes(rng, kind),
    }
    if kind in ("look", "act"):
        rows["churn_unscorable"] = [
            {"user_id": f"x{number}", "bundle_id": CHAMPION, "reason": "infinite_feature",
             "column_name": "amount_30d", "detail": "is infinite", "cutoff_date": NEWEST_CUTOFF}
            for number in range(3)
        ]  # fmt: skip
    return rows


def _newest_event(kind):
    return NEWEST_CUTOFF - datetime.timedelta(days=9 if kind == "act" else 1)


def _registry(kind):
    promoted = datetime.datetime(2026, 2, 10, 5, 12)
    models = [
        {"bundle_id": CHAMPION, "stage": "champion", "stage_reason": "passed the gate",
         "model_kind": "stack", "encoder": "compact", "training_row_count": 48_210,
         "training_base_rate": 0.241, "test_auroc": 0.812, "test_average_precision": 0.587,
         "test_calibration_error": 0.014, "is_champion": True, "stage_since": promoted,
         "trained_until_date": CUTOFFS[5], "created_at": promoted, "run_id": "305b5084f067"},
        {"bundle_id": OLD, "stage": "retired", "stage_reason": f"replaced by {CHAMPION}",
         "model_kind": "gbm", "encoder": "compact", "training_row_count": 40_007,
         "training_base_rate": 0.236, "test_auroc": 0.801, "is_champion": False,
         "stage_since": promoted, "trained_until_date": CUTOFFS[0] - WEEK,
         "created_at": datetime.datetime(2025, 11, 2, 5, 0)},
        {"bundle_id": SHADOW, "stage": "shadow", "stage_reason": "to be watched for a month",
         "model_kind": "bert", "encoder": "compact", "training_row_count": 51_377,
         "training_base_rate": 0.243, "test_auroc": 0.815, "is_champion": False,
         "stage_since": datetime.datetime(2026, 3, 10, 9, 0),
         "trained_until_date": CUTOFFS[9], "created_at": datetime.datetime(2026, 3, 10, 5, 0)},
    ]  # fmt: skip
    log = [
        {"log_sequence": 1, "bundle_id": OLD, "moved_by": "scheduler", "from_stage": "candidate",
         "to_stage": "champion", "reason": "first model", "checks_json": "[]",
         "is_override": False, "moved_at": datetime.datetime(2025, 11, 2, 5, 1)},
        {"log_sequence": 2, "bundle_id": CHAMPION, "moved_by": "scheduler",
         "from_stage": "candidate", "to_stage": "champion", "reason": "passed the gate",
         "checks_json": json.dumps([{"name": "auroc", "value": 0.812, "limit": 0.8,
                                     "is_passed": True}]),
         "is_override": kind == "look", "moved_at": promoted},
        {"log_sequence": 3, "bundle_id": SHADOW, "moved_by": "dana", "from_stage": "candidate",
         "to_stage": "shadow", "reason": "to be watched for a month", "checks_json": "[]",
         "is_override": False, "moved_at": datetime.datetime(2026, 3, 10, 9, 0)},
    ]  # fmt: skip
    if kind == "act":
        models.append(
            {"bundle_id": REFUSED, "stage": "retired", "model_kind": "bert",
             "stage_reason": "refused by the gate: AUROC 0.412, at least 0.782 is needed",
             "encoder": "compact", "training_row_count": 52_000, "test_auroc": 0.412,
             "is_champion": False, "stage_since": datetime.datetime(2026, 3, 25, 5, 0),
             "created_at": datetime.datetime(2026, 3, 25, 4, 40)}
        )  # fmt: skip
        log.append(
            {"log_sequence": 4, "bundle_id": REFUSED, "moved_by": "scheduler",
             "from_stage": "candidate", "to_stage": "retired",
             "reason": "refused by the gate: AUROC 0.412, at least 0.782 is needed",
             "checks_json": json.dumps([{"name": "auroc", "value": 0.412, "limit": 0.782,
                                         "is_passed": False}]),
             "is_override": False, "moved_at": datetime.datetime(2026, 3, 25, 5, 0)}
        )  # fmt: skip
    return {"churn_models": models, "churn_model_log": log}


def in_service(cutoff):
    """Return who was champion at a cutoff."""
    return OLD if cutoff < datetime.date(2026, 2, 10) else CHAMPION


def _tier(probability):
    return next(name for low, name in TIERS if probability >= low)


def _scores(rng, kind):
    rows = []
    risk = rng.normal(-1.3, 1.1, NUM_USERS)
    for cutoff in CUTOFFS[-2:]:
        risk = risk + rng.normal(0.0, 0.35, NUM_USERS) * (rng.random(NUM_USERS) < 0.6)
        shift = 0.7 if kind == "act" and cutoff == NEWEST_CUTOFF else 0.0
        for bundle_id, noise in ((CHAMPION, 0.0), (SHADOW, 0.25)):
            logits = risk + shift + noise * rng.normal(size=NUM_USERS)
            for user, logit in enumerate(logits.tolist()):
                probability = 1.0 / (1.0 + math.exp(-logit))
                rows.append(
                    {"user_id": f"customer-{user:04d}", "bundle_id": bundle_id,
                     "risk_tier": _tier(probability), "churn_probability": probability,
                     "is_flagged": probability >= 0.35, "cutoff_date": cutoff,
                     "scored_at": datetime.datetime.combine(cutoff, datetime.time(5, 30))}
                )  # fmt: skip
    return rows


def _movers(rng, scores):
    then, now = (
        {row["user_id"]: row["churn_probability"] for row in scores
         if row["cutoff_date"] == cutoff and row["bundle_id"] == CHAMPION}
        for cutoff in CUTOFFS[-2:]
    )  # fmt: skip
    changes = {user: now[user] - then[user] for user in now if abs(now[user] - then[user]) > 1e-12}
    ranked = sorted(changes, key=lambda user: (-abs(changes[user]), user))
    rows = []
    for rank, user in enumerate(ranked, start=1):
        change = changes[user]
        model = 0.02 * rng.normal() if rank % 3 else 0.6 * change
        calibration = 0.004 * rng.normal()
        effects = {
            "behaviour": change - model - calibration, "model": model, "calibration": calibration
        }  # fmt: skip
        rows.append(
            {"user_id": user, "bundle_id": CHAMPION, "previous_bundle_id": CHAMPION,
             "main_cause": max(effects, key=lambda name: abs(effects[name])),
             "churn_probability": now[user], "previous_churn_probability": then[user],
             "probability_change": change, "change_rank": rank, "cutoff_date": CUTOFFS[-1],
             "previous_cutoff_date": CUTOFFS[-2],
             **{f"{name}_effect": value for name, value in effects.items()}}
        )  # fmt: skip
    return rows


def _severity(psi):
    return "error" if psi >= 0.25 else "warn" if psi >= 0.1 else "ok"


def _drift(rng, kind):
    rows = []
    subjects = [("score", "churn_probability"), *(("feature", name) for name in FEATURES),
                *(("token", name) for name in TOKENS)]  # fmt: skip
    loud = {"healthy": {}, "look": {"amount_90d": 0.13, "discount_share_90d": 0.11},
            "act": {"amount_30d": 0.62, "amount_90d": 0.48, "basket_amount_mean_90d": 0.33,
                    "view_count_30d": 0.14, "churn_probability": 0.16}}[kind]  # fmt: skip
    for place, cutoff in enumerate(CUTOFFS[6:], start=1):
        share = (place / len(CUTOFFS[6:])) ** 3
        for subject_type, subject in subjects:
            psi = 0.004 + 0.03 * rng.random() + share * loud.get(subject, 0.0)
            reference = 10.0 + len(subject)
            if subject_type == "score":
                reference = 0.24
            if subject == "rating_mean_365d":
                reference = None
            rows.append(
                {"bundle_id": CHAMPION, "subject_type": subject_type, "subject": subject,
                 "severity": _severity(psi), "population_stability_index": psi,
                 "kolmogorov_smirnov": 0.5 * math.sqrt(psi) / 2,
                 "wasserstein_distance": psi, "reference_mean": reference,
                 "current_mean": None if reference is None else reference * (1 + psi),
                 "reference_count": 48_210, "current_count": NUM_USERS, "cutoff_date": cutoff}
            )  # fmt: skip
    return rows


def _base_rates(rng):
    rows = []
    for place, cutoff in enumerate(CUTOFFS):
        expected = 0.245 + 0.01 * rng.normal()
        observed = expected + 0.015 * rng.normal() if place < NUM_MATURED else None
        rows.append(
            {"bundle_id": in_service(cutoff), "user_count": 2300 + place,
             "reference_base_rate": 0.241, "expected_base_rate": expected,
             "observed_base_rate": observed, "explained_change": expected - 0.241,
             "unexplained_change": None if observed is None else observed - expected,
             "cutoff_date": cutoff}
        )  # fmt: skip
    return rows


def _volumes(rng, kind):
    rows = []
    newest = 9 if kind == "act" else 1
    for back in range(newest + 44, newest - 1, -1):
        date = NEWEST_CUTOFF - datetime.timedelta(days=back)
        for name, mean in EVENT_TYPES.items():
            weekend = 1.3 if date.weekday() >= 5 else 1.0
            count = int(rng.poisson(mean * weekend))
            if kind == "act" and name == "view" and back <= newest + 3:
                count = 0
            if kind == "look" and name == "review" and back == 3:
                count = 120
            low, high = mean * weekend - 4 * math.sqrt(mean), mean * weekend + 4 * math.sqrt(mean)
            severity = "ok" if low <= count <= high else "error" if count == 0 else "warn"
            rows.append({"event_type": name, "severity": severity, "event_count": count,
                         "expected_low": max(low, 0.0), "expected_high": high,
                         "event_date": date})  # fmt: skip
    return rows


def _shadows(rng):
    return [
        {"bundle_id": SHADOW, "champion_bundle_id": CHAMPION, "user_count": 2310,
         "rank_correlation": 0.962 + 0.01 * rng.random(), "mean_probability": 0.251,
         "champion_mean_probability": 0.246, "tier_flip_count": 148, "tier_flip_share": 0.0641,
         "flag_flip_count": 61, "mean_absolute_change": 0.021, "cutoff_date": cutoff}
        for cutoff in CUTOFFS[-3:]
    ]  # fmt: skip


def _outcomes(rng, kind):
    performance, bins, outcomes = [], [], []
    for place, cutoff in enumerate(CUTOFFS[:NUM_MATURED]):
        for bundle_id in {in_service(cutoff), *([SHADOW] if place == 9 else [])}:
            base = 0.24 + 0.012 * rng.normal()
            auroc = 0.805 + 0.008 * rng.normal()
            said = base + 0.01 * rng.normal()
            if kind == "act" and place >= 7:
                auroc, said = auroc - 0.05 * (place - 6), base - 0.03 * (place - 6)
            users = 2280 + place
            performance.append(
                {"bundle_id": bundle_id, "user_count": users,
                 "churned_count": round(base * users), "base_rate": base,
                 "mean_probability": said, "auroc": auroc,
                 "average_precision": base + 0.34 * (auroc - 0.5) / 0.3,
                 "brier_score": 0.14, "log_loss": 0.42,
                 "calibration_error": abs(said - base) + 0.012, "lift_top_decile": 2.6,
                 "flagged_count": 520, "flagged_precision": 0.52, "flagged_recall": 0.49,
                 "changed_label_count": 5 if place == 8 else 0,
                 "is_out_of_time": place != 0, "cutoff_date": cutoff}
            )  # fmt: skip
            for number in range(1, 11):
                mean = 0.02 + 0.075 * (number - 1)
                rate = min(max(mean + (base - said) + 0.02 * rng.normal(), 0.0), 1.0)
                bins.append(
                    {"bundle_id": bundle_id, "bin_number": number, "bin_low": mean - 0.02,
                     "bin_high": mean + 0.02, "user_count": users // 10,
                     "mean_probability": mean, "observed_rate": rate, "cutoff_date": cutoff}
                )  # fmt: skip
    for user in range(40):
        is_changed = user < 5
        outcomes.append(
            {"user_id": f"customer-{user:04d}", "bundle_id": CHAMPION, "risk_tier": "low",
             "churn_probability": 0.2, "label_change_count": int(is_changed),
             "is_flagged": False, "is_churned": user % 4 == 0,
             "first_is_churned": (user % 4 == 0) != is_changed, "is_out_of_time": True,
             "cutoff_date": CUTOFFS[8],
             "label_changed_at": datetime.datetime(2026, 3, 29, 5) if is_changed else None}
        )  # fmt: skip
    return {
        "churn_model_performance": performance,
        "churn_calibration_bins": bins,
        "churn_score_outcomes": outcomes,
    }


#: What `trainer.retraining` says, by its contract.
PLAN_DUE = {
    "is_due": True,
    "reasons": ["drift"],
    "checks": [
        {"name": "age", "value": 49.0, "limit": 90.0, "is_due": False,
         "message": "the champion is 49 days old; due at 90"},
        {"name": "labels", "value": 9_012, "limit": 20_000, "is_due": False,
         "message": "9,012 labels have matured since it was trained; due at 20,000"},
        {"name": "drift", "value": 3, "limit": 0, "is_due": True,
         "message": "3 subjects have drifted to error"},
        {"name": "decay", "value": None, "limit": 0.05, "is_due": False,
         "message": "not measured yet"},
    ],
}  # fmt: skip
PLAN_LATER = {
    **PLAN_DUE,
    "is_due": False,
    "reasons": [],
    "checks": [{**check, "is_due": False} for check in PLAN_DUE["checks"]],
}


def health_tables(connection, *, users=20, relations=None, **fields):
    """Read a connection as `read_health` reads a warehouse."""
    from trainer.health_report.tables import (
        HealthTables,
        as_of,
        describe_tables,
        run_queries,
    )

    states, sources = describe_tables(connection, RELATIONS if relations is None else relations)
    return HealthTables(
        **{
            "results": run_queries(connection, states, sources, users=users),
            "table_states": states,
            "as_of": as_of(SETTINGS["as_of"]),
            "settings": SETTINGS,
            "descriptions": {"amount_30d": "Money spent in the last 30 days."},
            "source": {"project": "shop", "target": {"name": "dev"}, "dbt_version": "1.11.16"},
            "registry_champion_id": CHAMPION,
            **fields,
        }
    )
