"""The whole path on small data: events, dbt build, churn-train run, dbt build, dbt build."""

from __future__ import annotations

import datetime
import html
import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from gate_example import copy_of_bundle
from shop_example import NAMES, SHOP_VARS, SMALL_TRAINING, shop_events

from churn_udf.cli import main
from churn_udf.registry import read_registry

SCORES = "select *, rowid from churn_scores order by user_id"


def churn_train(project: Any, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a churn-train command against the project's warehouse."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    environment |= {f"CHURN_TRAIN_{name}": value for name, value in SMALL_TRAINING.items()}
    folders = ["--runs-dir", "runs", "--snapshots-dir", "snapshots"] if "run" in arguments else []
    return subprocess.run(
        [
            *(sys.executable, "-m", "trainer", *arguments, *folders),
            *("--project-dir", str(project.project_dir), "--profiles-dir", str(project.root)),
            *("--vars", json.dumps(project.vars)),
        ],
        cwd=project.root,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def scored(make_dbt_project: Callable[..., Any]) -> tuple[Any, dict[str, Any]]:
    """A project after the three commands, and what `churn-train run --json` said."""
    project = make_dbt_project()
    users = {"user_id": [f"u{user:03d}" for user in range(160)], "plan": ["gold", "free"] * 80}
    project.load("shop_users", pa.table(users))
    project.vars = {
        **SHOP_VARS,
        "churn__events_path": project.events_parquet(shop_events(160)),
        "churn__users_relation": "shop_users",
    }
    project.build()
    assert project.query("select count(*) from churn_scores") == [(0,)]
    trained = churn_train(project, "run", "--json")
    assert trained.returncode == 0, trained.stderr[-3000:]
    project.build()
    return project, json.loads(trained.stdout)


@pytest.mark.integration
@pytest.mark.slow
def test_every_customer_at_the_score_cutoff_has_one_calibrated_score(scored):
    project, outcome = scored
    expected = project.query("select user_id from churn_examples where is_score_cutoff order by 1")
    found = project.query("select user_id from churn_scores_current order by 1")
    assert found == expected
    assert len(found) > 60
    assert project.query(
        "select count(*), count(distinct bundle_id), min(bundle_id) from churn_scores "
        "where churn_probability > 0 and churn_probability < 1 and why is not null"
    ) == [(len(found), 1, outcome["bundle_id"])]


@pytest.mark.integration
@pytest.mark.slow
def test_the_health_report_is_made_of_the_real_tables(scored, tmp_path):
    project, outcome = scored
    out = tmp_path / "report.html"
    reported = churn_train(project, "report", "--json", "--out", str(out))
    assert reported.returncode == 0, reported.stderr[-3000:]
    facts = json.loads(reported.stdout)
    assert facts["champion"]["bundle_id"] == outcome["bundle_id"]
    assert facts["verdict"]["level"] in ("look", "act")  # the shop's data are years old
    (users,) = project.query("select count(*) from churn_scores_current")[0]
    assert facts["scores"]["user_count"] == users
    assert set(facts["tables"].values()) <= {"read", "unknown"}
    assert facts["verdict"]["headline"] in html.unescape(out.read_text(encoding="utf-8"))


@pytest.mark.integration
@pytest.mark.slow
def test_profile_columns_are_sliced_by(scored):
    project, outcome = scored
    (metrics,) = project.root.rglob(f"{outcome['run_id']}/metrics.json")
    found = json.loads(metrics.read_text())
    segments = found["slices"]["by"]["profile.plan"]["segments"]
    assert {one["segment"] for one in segments} == {"free", "gold"}
    assert sum(one["rows"] for one in segments) == found["splits"]["test"]["rows"]


@pytest.mark.integration
@pytest.mark.slow
def test_python_model_sql_function_and_offline_scores_agree(scored):
    project, _ = scored
    checked = churn_train(project, "parity", "--json")
    assert checked.returncode == 0, checked.stderr[-3000:]
    doors = json.loads(checked.stdout)
    differences = [value for name, value in _numbers(doors) if "difference" in name]
    assert len(differences) >= 2
    assert max(differences) <= 1e-5


@pytest.mark.integration
@pytest.mark.slow
def test_the_gate_has_checked_everything_and_its_checks_are_logged(scored):
    project, outcome = scored
    checks = {check["name"]: check for check in outcome["gate_checks"]}
    assert all(check["is_passed"] and check["is_checked"] for check in checks.values())
    assert checks["parity"]["value"] <= 1e-5
    assert checks["snapshot_label_changes"]["value"] == 0
    assert checks["snapshot_age"]["value"] == 0
    (entry,) = read_registry(project.models_dir).transitions
    assert list(entry.checks) == outcome["gate_checks"]


@pytest.mark.integration
@pytest.mark.slow
def test_copy_that_ranks_backwards_is_refused(scored):
    project, outcome = scored
    bad = copy_of_bundle(project.models_dir, outcome["bundle_id"])
    folders = ["--runs-dir", "runs", "--snapshots-dir", "snapshots"]
    refused = churn_train(project, "promote", bad, "--json", *folders)
    assert refused.returncode == 3, refused.stderr[-3000:]
    failed = {one["name"] for one in json.loads(refused.stdout)["checks"] if not one["is_passed"]}
    assert failed >= {"shipped_auroc", "shipped_claim", "champion_auroc"}
    assert not failed & {"parity", "test_auroc", "snapshot_files", "snapshot_settings"}
    assert read_registry(project.models_dir).champion_id == outcome["bundle_id"]


@pytest.mark.integration
@pytest.mark.slow
@pytest.mark.parametrize("source", ["export", "snapshot"])
def test_the_command_gives_the_scores_of_the_table(scored, tmp_path, source):
    project, _ = scored
    path = tmp_path / "examples.parquet"
    if source == "export":
        project.execute(f"copy (from churn_examples where is_score_cutoff) to '{path}'")
    else:
        (document,) = project.root.glob("snapshots/*/snapshot.json")
        path = document.parent
    target = tmp_path / "scores.parquet"
    arguments = ["batch", "--models-dir", project.models_dir, "-i", path, "-o", target]
    result = CliRunner().invoke(main, [str(item) for item in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.stderr
    assert ("does not tell its settings" in result.stderr) == (source == "export")
    names = [
        *("user_id", "cutoff_date", "input_hash", "churn_probability", "churn_logit"),
        *("risk_tier", "is_flagged", "top_reason", "bundle_id"),
    ]
    found = {
        (row["user_id"], row["cutoff_date"]): row
        for row in pq.read_table(target, columns=names).to_pylist()
    }
    rows = project.query(f"select {', '.join(names)} from churn_scores")
    assert len(rows) > 60
    for row in rows:
        expected = dict(zip(names, row, strict=True))
        mine = found[expected["user_id"], expected["cutoff_date"]]
        for name in ("churn_probability", "churn_logit"):
            assert mine[name] == pytest.approx(expected.pop(name), abs=1e-5)
        assert {name: mine[name] for name in expected} == expected


@pytest.mark.integration
@pytest.mark.slow
def test_a_model_that_was_just_trained_sees_no_drift(scored):
    project, outcome = scored
    rows = project.table("select * from churn_score_drift").to_pylist()
    assert {row["bundle_id"] for row in rows} == {outcome["bundle_id"]}
    kinds = [row["subject_type"] for row in rows]
    assert (kinds.count("feature"), kinds.count("score")) == (85, 1)
    assert kinds.count("token") > 20
    assert [row["subject"] for row in rows if row["severity"] == "error"] == []
    (score,) = (row for row in rows if row["subject_type"] == "score")
    assert score["kolmogorov_smirnov"] <= 0.05, "the reference is of these very users"
    means = {row["subject"]: row["current_mean"] for row in rows}
    for name in ("tenure_days", "amount_90d"):
        (known,) = project.query(f"select avg({name}) from churn_examples where is_score_cutoff")[0]
        assert means[name] == pytest.approx(known)
    (change,) = project.table("select * from churn_base_rate_changes").to_pylist()
    mean = "select count(*), avg(churn_probability) from churn_scores"
    expected = (change["user_count"], pytest.approx(change["expected_base_rate"]))
    assert project.query(mean) == [expected]
    assert abs(change["explained_change"]) < 0.2
    assert change["observed_base_rate"] is None


@pytest.mark.integration
@pytest.mark.slow
def test_second_build_scores_nothing_and_changes_no_row(scored):
    project, _ = scored
    drift = "select rowid, * from churn_drift_measures order by all"
    measured = project.query(drift)
    before, cached = project.query(SCORES), project.query("select count(*) from churn_score_cache")
    project.build()
    assert project.query(SCORES) == before
    assert project.query(drift) == measured
    assert project.query("select count(*) from churn_score_cache") == cached
    leaked = "select table_name from duckdb_tables() where table_name like '%__dbt_tmp%'"
    assert project.query(leaked) == []


@pytest.mark.integration
@pytest.mark.slow
def test_second_run_trains_nothing(scored):
    project, outcome = scored
    again = churn_train(project, "run", "--json")
    assert again.returncode == 0, again.stderr[-3000:]
    assert "unchanged" in again.stderr
    assert json.loads(again.stdout)["bundle_id"] == outcome["bundle_id"]


@pytest.mark.integration
@pytest.mark.slow
def test_a_night_after_training_finds_nothing_due(scored):
    project, outcome = scored
    night = churn_train(project, "run", "--if-due", "--json")
    assert night.returncode == 0, night.stderr[-3000:]
    document = json.loads(night.stdout)
    assert document["was_run"] is False
    found = document["retraining"]
    assert found["champion_id"] == outcome["bundle_id"]
    assert not found["is_due"], found
    checks = {check["name"]: check for check in found["checks"]}
    assert (checks["age"]["value"], checks["labels"]["value"]) == (0, 0)
    assert "has matured yet" in checks["decay"]["message"]
    aged = churn_train(
        project, "run", "--if-due", "--dry-run", "--set", "retraining.max_age_days=0"
    )
    assert aged.returncode == 0, aged.stderr[-3000:]
    assert "age" in aged.stdout
    project.query("select 1")  # nobody holds the file


@pytest.mark.integration
@pytest.mark.slow
def test_new_events_change_the_scores_of_their_users_alone(scored):
    project, _ = scored
    before = dict(project.query("select user_id, churn_probability from churn_scores_current"))
    (last_day,) = project.query("select max(event_ts) from stg_churn__events")[0]
    user = min(before)
    late = {
        "user_id": user,
        "event_type": "purchase",
        "event_ts": (last_day - datetime.timedelta(days=2)).isoformat(" "),
        "order_id": "late",
        "item_id": "i0",
        "item_name": NAMES[0],
        "category": "food",
        "amount": 31.0,
        "quantity": 1.0,
    }
    path = project.events_parquet([*shop_events(160), late], name="late.parquet")
    project.build(vars={"churn__events_path": path})
    after = dict(project.query("select user_id, churn_probability from churn_scores_current"))
    assert {name for name in before if after[name] != before[name]} == {user}
    project.build()
    assert dict(project.query("select user_id, churn_probability from churn_scores_current")) == (
        before
    )


@pytest.mark.integration
@pytest.mark.slow
@pytest.mark.parametrize(
    ("num_users", "changes", "said"),
    [
        (1, {}, "both outcomes are needed"),
        (12, {"churn__horizon_days": 290}, "no cutoff has mature labels"),
    ],
    ids=["one-user", "no-mature-label"],
)
def test_data_that_cannot_train_ends_in_one_clear_error(make_dbt_project, num_users, changes, said):
    project = make_dbt_project()
    events = [
        {**event, "user_id": "u0"} if num_users == 1 else event for event in shop_events(num_users)
    ]
    project.vars = {**SHOP_VARS, **changes, "churn__events_path": project.events_parquet(events)}
    if "churn__horizon_days" in changes:
        project.vars["churn__training_cutoffs"] = ["2024-06-03"]
    project.build()
    failed = churn_train(project, "run")
    assert failed.returncode == 1
    assert said in failed.stderr
    assert "Traceback" not in failed.stderr


def _numbers(document: Any, name: str = "") -> list[tuple[str, float]]:
    """Return every number of a JSON document with its key."""
    if isinstance(document, dict):
        return [pair for key, value in document.items() for pair in _numbers(value, str(key))]
    if isinstance(document, list):
        return [pair for value in document for pair in _numbers(value, name)]
    is_number = isinstance(document, (int, float)) and not isinstance(document, bool)
    return [(name, float(document))] if is_number else []
