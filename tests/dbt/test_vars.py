"""Every var: bad values fail at start with the var's name, good ones are coerced."""

from __future__ import annotations

import json
from typing import Any

import pytest

EVENTS = [
    {"user_id": "u1", "event_type": "purchase", "event_ts": "2024-01-01 10:00:00"},
    {"user_id": "u2", "event_type": "purchase", "event_ts": "2024-03-01 10:00:00"},
]

NUMBERS = {
    "observation_days": (1, 3650),
    "eligibility_days": (1, 365),
    "gap_days": (0, 365),
    "horizon_days": (1, 730),
    "max_training_cutoffs": (1, 1000),
    "max_visits": (1, 256),
    "max_words_per_visit": (0, 64),
    "max_reviews": (0, 64),
    "max_review_chars": (1, 10000),
    "late_data_days": (0, 365),
    "max_data_age_days": (1, 3650),
}

BAD_VALUES: list[tuple[str, Any, str]] = [
    *[(name, low - 1, f"from {low} to") for name, (low, _) in NUMBERS.items()],
    *[
        (name, high + 1, f"to {high}")
        for name, (_, high) in NUMBERS.items()
        if name != "eligibility_days"
    ],
    ("eligibility_days", 366, "churn__observation_days (365)"),
    ("horizon_days", "a month", "a whole number"),
    ("horizon_days", 30.5, "a whole number"),
    ("horizon_days", True, "a whole number"),
    ("horizon_days", [30], "a whole number"),
    ("max_amount", 0, "a number above 0"),
    ("max_amount", -5, "a number above 0"),
    ("max_quantity", ".inf", "a number above 0"),
    ("max_quantity", "nan", "a number above 0"),
    ("min_event_date", "1971", "YYYY-MM-DD"),
    ("min_event_date", "01/02/1971", "YYYY-MM-DD"),
    ("data_end_date", "2024-02-30", "YYYY-MM-DD or 'auto'"),
    ("data_end_date", "latest", "YYYY-MM-DD or 'auto'"),
    ("score_cutoff_date", "2023-02-29", "YYYY-MM-DD or 'latest'"),
    ("score_cutoff_date", "2024-13-01", "YYYY-MM-DD or 'latest'"),
    ("score_cutoff_date", "today", "YYYY-MM-DD or 'latest'"),
    ("qualifying_event_types", [], "at least one entry"),
    ("qualifying_event_types", ["  "], "at least one entry"),
    ("qualifying_event_types", {"purchase": 1}, "a list of event types"),
    ("qualifying_event_types", 7, "a list of event types"),
    ("event_type_roles", {"rental": "buying"}, "purchase, return, view"),
    ("event_type_roles", ["rental"], "a mapping of event type to role"),
    ("event_columns", {"customer": "user_id"}, "user_id, event_type, event_ts"),
    ("event_columns", {"user_id": None}, "user_id, event_type, event_ts"),
    ("event_columns", "CustomerID", "a mapping of user_id"),
    ("training_cutoffs", [], "a list of dates"),
    ("training_cutoffs", ["2024-02-01", "soon"], "a list of dates"),
    ("training_cutoffs", 7, "a list of dates"),
    ("training_cutoffs", {"every": 7}, "first (date), last (date), every_days"),
    ("training_cutoffs", {"every_days": 0}, "every_days (1 to 365)"),
    ("training_cutoffs", {"every_days": 366}, "every_days (1 to 365)"),
    ("training_cutoffs", {"first": "2024-02-01", "last": "2024-01-01"}, "must not be after"),
    ("user_columns", {"user_id": "id"}, "nothing while there is no users table"),
    ("profile_columns", ["age"], "nothing while there is no users table"),
    ("events_relation", "raw.events", "only one of them"),
    ("users_relation", "a.b.c.d", "database.schema.table"),
    ("users_path", "users.xlsx", ".parquet or .csv"),
    ("unscorable_rows", "ignore", "'warn' or 'fail'"),
    ("unscorable_rows", True, "'warn' or 'fail'"),
    ("stale_data", "ignore", "'warn' or 'fail' or 'allow'"),
    ("as_of", "yesterday", "'YYYY-MM-DD HH:MM:SS'"),
    ("as_of", "2024-02-30 01:00:00", "'YYYY-MM-DD HH:MM:SS'"),
    ("as_of", "2024-02-03 24:00:00", "'YYYY-MM-DD HH:MM:SS'"),
    ("as_of", "2024-02-03 10:00:00+02:00", "a moment in UTC"),
    ("as_of", 20240203, "a moment in UTC"),
]


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    BAD_VALUES,
    ids=[f"{name}={str(value)[:30]}" for name, value, _ in BAD_VALUES],
)
def test_bad_value_fails_at_start_and_names_var_value_and_what_is_allowed(
    dbt_project, name, value, allowed
):
    vars = {"churn__events_path": dbt_project.events_parquet(EVENTS)}
    message = dbt_project.build_fails(
        command="run", select="base_churn__users", vars={**vars, f"churn__{name}": value}
    )
    assert f"churn__{name}" in message or (name == "events_relation" and "_path" in message)
    assert "on-run-start" in message
    assert allowed in message
    assert "; " in message


def test_too_many_explicit_cutoffs_are_refused(dbt_project):
    vars = {
        "churn__events_path": dbt_project.events_parquet(EVENTS),
        "churn__max_training_cutoffs": 1,
        "churn__training_cutoffs": ["2024-02-01", "2024-02-08"],
    }
    message = dbt_project.build_fails(command="run", select="base_churn__users", vars=vars)
    assert "churn__training_cutoffs: got 2 dates" in message
    assert "churn__max_training_cutoffs (1)" in message


def test_no_events_input_is_refused(dbt_project):
    message = dbt_project.build_fails(command="run", select="base_churn__users")
    assert "exactly one of churn__events_relation" in message


def test_misspelt_var_is_refused_with_the_nearest_name(dbt_project):
    vars = {"churn__events_path": dbt_project.events_parquet(EVENTS), "churn__horizon_day": 3}
    message = dbt_project.build_fails(command="run", select="base_churn__users", vars=vars)
    assert "churn__horizon_day: there is no such var" in message
    assert "did you mean churn__horizon_days?" in message


def test_parse_needs_no_vars(dbt_project):
    dbt_project.succeed("parse")


def _context(dbt_project, vars):
    result = dbt_project.succeed(
        ["compile", "--inline", "{{ churn_scoring.churn_context() }}"], vars=vars
    )
    return json.loads(result.results[0].node.compiled_code)


def test_values_are_coerced(dbt_project):
    vars = {
        "churn__events_path": dbt_project.events_parquet(EVENTS),
        "churn__horizon_days": "14",
        "churn__gap_days": 2.0,
        "churn__max_amount": "2.5e3",
        "churn__observation_days": None,
        "churn__max_visits": "null",
        "churn__qualifying_event_types": " Purchase ,  subscription_renewed",
        "churn__event_type_roles": '{"Rental": "PURCHASE"}',
        "churn__training_cutoffs": '["2024-02-08", "2024-02-01", "2024-02-08"]',
        "churn__score_cutoff_date": "LATEST",
        "churn__event_columns": "{amount: total}",
        "churn__unscorable_rows": " Fail ",
        "churn__as_of": "2024-03-02T03:30:00.5Z",
    }
    settings = _context(dbt_project, vars)["settings"]
    assert settings["horizon_days"] == 14
    assert settings["gap_days"] == 2
    assert settings["max_amount"] == 2500
    assert settings["observation_days"] == 365
    assert settings["max_visits"] == 16
    assert settings["qualifying_event_types"] == ["purchase", "subscription_renewed"]
    assert settings["event_type_roles"] == {"rental": "purchase"}
    assert settings["training_cutoffs"] == {"dates": ["2024-02-01", "2024-02-08"]}
    assert settings["score_cutoff_date"] == "latest"
    assert settings["event_columns"] == {"amount": "total"}
    assert settings["unscorable_rows"] == "fail"
    assert settings["as_of"] == "2024-03-02 03:30:00"
    assert settings["stale_data"] == "warn"


def test_context_tells_python_settings_relations_and_features(dbt_project):
    context = _context(dbt_project, {"churn__events_path": dbt_project.events_parquet(EVENTS)})
    assert context["project"] == "churn_scoring"
    assert context["target"] == {"name": "dev", "type": "duckdb", "schema": "main"}
    assert context["invocation_id"]
    assert context["dbt_version"].startswith("1.")
    assert {"text_version", "feature_version", "horizon_days"} <= set(context["settings"])
    assert {
        "churn_examples",
        "churn_scores",
        "churn_scores_current",
        "churn_unscorable",
        "stg_churn__rejected_events",
        "int_cutoffs_spined",
    } <= set(context["relations"])
    assert context["relations"]["churn_examples"] == '"warehouse"."main"."churn_examples"'
    features = context["features"]
    assert len(features) >= 60
    assert all(feature["name"] and feature["group"] for feature in features)
    assert all(feature["description"] for feature in features)
