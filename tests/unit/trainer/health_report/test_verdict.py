"""The verdict: what decides it, at, before and after each bound."""

import datetime
import re

import pytest

from tests.health_example import (
    CHAMPION,
    CUTOFFS,
    NEWEST_CUTOFF,
    PLAN_DUE,
    PLAN_LATER,
    REFUSED,
    SETTINGS,
    health_tables,
    make_warehouse,
)
from trainer.health_report import health_facts

NEWEST_MATURED = CUTOFFS[9]


@pytest.fixture
def warehouse():
    return make_warehouse()


def facts_of(connection, **fields):
    plan = fields.pop("retraining", PLAN_LATER)
    return health_facts(health_tables(connection, **fields), retraining=plan)


def reason(facts, name):
    return next((one for one in facts["verdict"]["reasons"] if one["name"] == name), None)


def set_newest(connection, **columns):
    """Change the newest performance of the champion."""
    assigned = ", ".join(f"{name} = {value}" for name, value in columns.items())
    connection.execute(
        f"update churn_model_performance set {assigned} "
        f"where bundle_id = '{CHAMPION}' and cutoff_date = date '{NEWEST_MATURED}'"
    )


def test_a_healthy_model_is_said_to_be_healthy(warehouse):
    facts = facts_of(warehouse)
    assert facts["verdict"]["level"] == "healthy"
    assert facts["verdict"]["headline"].startswith("Healthy: past scores turned out")
    assert {one["level"] for one in facts["verdict"]["reasons"]} == {"fine"}


def test_the_worst_reason_decides_and_comes_first():
    facts = facts_of(make_warehouse(kind="act"), retraining=PLAN_DUE)
    levels = [one["level"] for one in facts["verdict"]["reasons"]]
    assert facts["verdict"]["level"] == "act"
    assert levels == sorted(levels, key=["act", "look", "unknown", "fine"].index)
    assert "no view events" in facts["verdict"]["headline"]
    assert "3 inputs have drifted far" in facts["verdict"]["headline"]
    assert re.search(r"; and \d more reasons\.$", facts["verdict"]["headline"])


def test_no_model_calls_for_action():
    facts = facts_of(make_warehouse(kind="empty"), registry_champion_id=None)
    assert facts["verdict"]["headline"] == "Act now: no model is in service yet."
    assert reason(facts, "decay") is None
    assert facts["champion"] is None


def test_a_champion_that_the_last_build_did_not_know_is_told(warehouse):
    found = reason(facts_of(warehouse, registry_champion_id="f" * 12), "champion")
    assert found["level"] == "look"
    assert "ffffffff was promoted after the last build" in found["text"]


def test_a_registry_that_cannot_be_read_calls_for_action(warehouse):
    found = reason(facts_of(warehouse, registry_problem="entry 3 is damaged"), "champion")
    assert found["level"] == "act"
    assert "entry 3 is damaged" in found["text"]


def test_a_forced_champion_is_to_be_looked_at():
    assert reason(facts_of(make_warehouse(kind="look")), "champion")["level"] == "look"


def test_a_rollback_to_a_forced_champion_is_to_be_looked_at():
    connection = make_warehouse(kind="look")
    connection.execute(
        "insert into churn_model_log by name select * replace (9 as log_sequence, '[]' as "
        "checks_json, 'back' as reason, false as is_override, 'retired' as from_stage) "
        f"from churn_model_log where bundle_id = '{CHAMPION}'"
    )
    assert reason(facts_of(connection), "champion")["level"] == "look"


def test_a_replay_before_the_model_was_made_tells_no_age(warehouse):
    warehouse.execute("update churn_models set created_at = timestamp '2099-01-01'")
    found = facts_of(warehouse)
    assert found["champion"]["age_days"] is None
    assert reason(found, "champion")["text"].endswith(" is champion.")


@pytest.mark.parametrize(
    ("name", "level"), [("drift", "look"), ("unreadable", "act"), ("other_settings", "act")]
)
def test_a_champion_that_cannot_score_calls_for_action(warehouse, name, level):
    found = facts_of(warehouse, retraining={**PLAN_DUE, "reasons": [name]})
    assert reason(found, "retraining")["level"] == level
    assert ("the champion cannot score" in found["verdict"]["headline"]) is (level == "act")


@pytest.mark.parametrize(
    ("days", "level"),
    [(3, "fine"), (4, "look"), (7, "look"), (8, "act")],
)
def test_data_age(warehouse, days, level):
    as_of = datetime.datetime(2026, 3, 31, 6, tzinfo=datetime.timezone.utc)
    newest = as_of.date() - datetime.timedelta(days=days)
    warehouse.execute(f"update int_data_bounds set data_end_date = date '{newest}' + 1")
    found = reason(facts_of(warehouse), "data")
    assert found["level"] == level
    assert f"{days} days ago" in found["text"]


@pytest.mark.parametrize(
    ("days", "level"),
    [(14, "fine"), (15, "look"), (27, "look"), (28, "act")],
    ids=["half", "more-than-half", "last-day", "over"],
)
def test_scores_age_with_the_days_they_speak_of(warehouse, days, level):
    as_of = datetime.datetime.combine(
        NEWEST_CUTOFF + datetime.timedelta(days=days), datetime.time(), datetime.timezone.utc
    )
    assert reason(facts_of(warehouse, as_of=as_of), "scores")["level"] == level


def test_the_gap_belongs_to_the_days_that_scores_speak_of(warehouse):
    as_of = datetime.datetime.combine(
        NEWEST_CUTOFF + datetime.timedelta(days=28), datetime.time(), datetime.timezone.utc
    )
    facts = facts_of(warehouse, as_of=as_of, settings={**SETTINGS, "gap_days": 2})
    assert reason(facts, "scores")["level"] == "look"


@pytest.mark.parametrize(
    ("severity", "level"), [("ok", "fine"), ("warn", "look"), ("error", "act")]
)
def test_drift_has_the_severity_of_its_worst_subject(warehouse, severity, level):
    warehouse.execute(
        f"update churn_score_drift set severity = '{severity}' "
        f"where subject = 'tenure_days' and cutoff_date = date '{NEWEST_CUTOFF}'"
    )
    found = reason(facts_of(warehouse), "drift")
    assert found["level"] == level
    assert ("tenure_days" in found["text"]) is (severity != "ok")


def test_drift_of_earlier_cutoffs_and_other_models_does_not_count(warehouse):
    warehouse.execute(
        f"update churn_score_drift set severity = 'error' "
        f"where cutoff_date < date '{NEWEST_CUTOFF}'"
    )
    warehouse.execute(
        "insert into churn_score_drift by name select 'x' as bundle_id, 'feature' as subject_type,"
        f" 'y' as subject, 'error' as severity, date '{NEWEST_CUTOFF}' as cutoff_date"
    )
    assert reason(facts_of(warehouse), "drift")["level"] == "fine"


@pytest.mark.parametrize(
    ("auroc", "level"),
    [(0.793, "fine"), (0.785, "look"), (0.763, "look"), (0.75, "act"), (0.5, "act")],
)
def test_decay_is_measured_against_the_test(warehouse, auroc, level):
    set_newest(warehouse, auroc=auroc, user_count=20_000, churned_count=5_000)
    assert reason(facts_of(warehouse), "decay")["level"] == level


def test_a_drop_that_chance_explains_is_no_decay(warehouse):
    set_newest(warehouse, auroc=0.75, user_count=100, churned_count=24)
    assert reason(facts_of(warehouse), "decay")["level"] == "fine"


def test_rows_that_are_not_out_of_time_are_no_test(warehouse):
    warehouse.execute("update churn_model_performance set is_out_of_time = false, auroc = 0.1")
    found = reason(facts_of(warehouse), "decay")
    assert found["level"] == "unknown"
    assert reason(facts_of(warehouse), "calibration") is None


def test_before_anything_has_matured_it_says_from_when_on(warehouse):
    warehouse.execute("delete from churn_model_performance")
    found = reason(facts_of(warehouse), "decay")
    first = CUTOFFS[-2] + datetime.timedelta(days=28)
    assert found["level"] == "unknown"
    assert f"can be judged from {first}" in found["text"]


@pytest.mark.parametrize(
    ("gap", "level"), [(0.029, "fine"), (0.031, "look"), (0.079, "look"), (0.081, "act")]
)
def test_calibration_is_the_gap_of_means(warehouse, gap, level):
    set_newest(warehouse, mean_probability=0.3, base_rate=0.3 - gap, user_count=20_000)
    assert reason(facts_of(warehouse), "calibration")["level"] == level


def test_a_gap_that_chance_explains_is_fine(warehouse):
    set_newest(warehouse, mean_probability=0.3, base_rate=0.2, user_count=50)
    assert reason(facts_of(warehouse), "calibration")["level"] == "fine"


@pytest.mark.parametrize(("changed", "level"), [(20, None), (21, "look")])
def test_labels_that_late_events_change(warehouse, changed, level):
    set_newest(warehouse, changed_label_count=changed, user_count=2_000)
    found = reason(facts_of(warehouse), "late_labels")
    assert (found and found["level"]) == level


@pytest.mark.parametrize(("users", "level"), [(0, "fine"), (1, "look"), (21, "look"), (22, "act")])
def test_users_without_a_score(warehouse, users, level):
    warehouse.execute(
        "insert into churn_unscorable by name "
        f"select 'x' || range as user_id, 'null_text' as reason from range({users})"
    )
    found = reason(facts_of(warehouse), "unscorable")
    assert found["level"] == level  # 400 have a score: 22 are more than 5 % of all


@pytest.mark.parametrize(
    ("severity", "days_before", "level"),
    [("error", 0, "act"), ("error", 1, "look"), ("warn", 0, "look"), ("warn", 6, "look"),
     ("warn", 7, "fine"), ("error", 7, "fine")],
)  # fmt: skip
def test_volumes_of_the_newest_day_and_the_week(warehouse, severity, days_before, level):
    date = NEWEST_CUTOFF - datetime.timedelta(days=1 + days_before)
    warehouse.execute(
        f"update churn_event_volumes set severity = '{severity}' "
        f"where event_type = 'return' and event_date = date '{date}'"
    )
    assert reason(facts_of(warehouse), "volumes")["level"] == level


@pytest.mark.parametrize(
    ("plan", "level"), [(None, "unknown"), (PLAN_DUE, "look"), (PLAN_LATER, "fine")]
)
def test_the_next_model(warehouse, plan, level):
    found = reason(facts_of(warehouse, retraining=plan), "retraining")
    assert found["level"] == level
    assert ("drift" in found["text"]) is (level == "look")


def test_a_refused_candidate_newer_than_the_champion_is_told():
    facts = facts_of(make_warehouse(kind="act"))
    assert [one["bundle_id"] for one in facts["models"]["refused"]] == [REFUSED]
    assert facts["models"]["refused"][0]["failed_checks"][0]["name"] == "auroc"
    assert reason(facts, "refused")["level"] == "look"


def test_a_refused_candidate_older_than_the_champion_is_history():
    connection = make_warehouse(kind="act")
    connection.execute(
        f"update churn_model_log set moved_at = '2026-01-01' where bundle_id = '{REFUSED}'"
    )
    assert reason(facts_of(connection), "refused")["level"] == "fine"


def test_a_newer_candidate_that_nobody_promoted_is_told(warehouse):
    warehouse.execute(
        "insert into churn_models by name select 'abcdefabcdef' as bundle_id, "
        "'candidate' as stage, false as is_champion, timestamp '2026-03-20' as created_at"
    )
    facts = facts_of(warehouse)
    assert [one["is_refused"] for one in facts["models"]["refused"]] == [False]
    found = reason(facts, "refused")
    assert found["level"] == "look"
    assert "1 newer model not promoted, last abcdefab" in found["text"]


def test_a_candidate_older_than_the_champion_is_nothing_to_tell(warehouse):
    warehouse.execute(
        "insert into churn_models by name select 'abcdefabcdef' as bundle_id, "
        "'candidate' as stage, false as is_champion, timestamp '2026-01-20' as created_at"
    )
    assert reason(facts_of(warehouse), "refused") is None


@pytest.mark.parametrize(("days", "level"), [(10, "fine"), (11, "look"), (20, "look"), (21, "act")])
def test_the_data_age_that_dbt_allows_is_the_limit(warehouse, days, level):
    newest = datetime.date(2026, 3, 31) - datetime.timedelta(days=days)
    warehouse.execute(f"update int_data_bounds set data_end_date = date '{newest}' + 1")
    facts = facts_of(warehouse, settings={**SETTINGS, "max_data_age_days": 20})
    assert reason(facts, "data")["level"] == level


@pytest.mark.parametrize(
    ("reason_given", "words"),
    [("silent", "no return events"), ("week_far_below", "far fewer return events than usual"),
     ("week_far_above", "far more return events than usual"), (None, "far fewer")],
)  # fmt: skip
def test_volumes_say_on_which_side_they_are(warehouse, reason_given, words):
    given = "null" if reason_given is None else f"'{reason_given}'"
    warehouse.execute(
        f"update churn_event_volumes set severity = 'error', reason = {given}, event_count = 1 "
        f"where event_type = 'return' and event_date = date '2026-03-29'"
    )
    assert words in facts_of(warehouse)["verdict"]["headline"]


def test_a_plan_that_says_when_is_repeated(warehouse):
    plan = {**PLAN_LATER, "message": "no new model is due: 7a31 goes on; due at cutoff 2026-05-01"}
    found = reason(facts_of(warehouse, retraining=plan), "retraining")
    assert found["text"] == "No new model is due: 7a31 goes on; due at cutoff 2026-05-01."
