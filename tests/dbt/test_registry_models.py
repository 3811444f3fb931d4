"""churn_models and churn_model_log, built by dbt from a registry."""

from __future__ import annotations

import datetime
import json

import pytest
from factories import tiny_bundle

from churn_udf.registry import move

REGISTRY = "+churn_models +churn_model_log"
# Tests that also read tables which this selection does not build are left out.
ONLY_OWN_TESTS = ["--indirect-selection", "cautious"]
EVENT = {"user_id": "u", "event_type": "purchase", "event_ts": "2024-03-01 09:00:00"}
FEATURES = ("recency_days", "order_count", "amount_sum")


@pytest.fixture(scope="module")
def project(module_dbt_project):
    project = module_dbt_project
    project.vars = {"churn__events_path": project.events_parquet([EVENT])}
    return project


def test_the_marts_follow_the_registry_from_before_the_first_bundle(project):
    models_dir = project.models_dir
    project.build(select=REGISTRY, args=ONLY_OWN_TESTS)
    assert project.query("select * from churn_models") == []
    assert project.query("select * from churn_model_log") == []

    first, second = (tiny_bundle(models_dir, FEATURES, seed=seed).bundle_id for seed in (1, 2))
    project.build(select=REGISTRY, args=ONLY_OWN_TESTS)
    stages = "select bundle_id, stage, is_champion, stage_reason from churn_models order by 1"
    assert project.query(stages) == sorted(
        (name, "candidate", False, None) for name in (first, second)
    )
    assert project.query("select count(*) from churn_models where stage_since = created_at") == [
        (2,)
    ]

    checks = [{"name": "parity", "passed": False, "value": 0.5, "limit": 1e-5}]
    move(models_dir, first, "champion", reason="first", moved_by="ann")
    move(
        *(models_dir, second, "champion"),
        reason="it's better",
        moved_by="bob",
        is_override=True,
        checks=checks,
    )
    move(models_dir, first, "shadow", reason="to compare", moved_by="bob")
    project.build(select=REGISTRY, args=ONLY_OWN_TESTS)
    expected = [
        (second, "champion", True, "it's better"),
        (first, "shadow", False, "to compare"),
    ]
    assert project.query(stages) == sorted(expected)
    log = project.query("select * from churn_model_log order by log_sequence")
    assert [row[:6] for row in log] == [
        (1, first, "ann", "candidate", "champion", "first"),
        (2, second, "bob", "candidate", "champion", "it's better"),
        (3, first, "bob", "retired", "shadow", "to compare"),
    ]
    assert [row[7] for row in log] == [False, True, False]
    assert json.loads(log[1][6]) == checks
    assert all(isinstance(row[8], datetime.datetime) for row in log)

    before = project.query("select * from churn_models order by 1")
    project.build(select=REGISTRY, args=ONLY_OWN_TESTS)
    assert project.query("select * from churn_models order by 1") == before
    assert project.query("select * from churn_model_log order by log_sequence") == log
