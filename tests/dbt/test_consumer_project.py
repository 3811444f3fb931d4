"""Another team's project that installs the package by path."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml
from champion import promote_tiny

from churn_udf.publishing import read_published

PACKAGE = Path(__file__).resolve().parents[2] / "dbt_project"
NO_TESTS = ["--exclude-resource-type", "test", "unit_test"]
EVENTS = [
    {
        "user_id": f"u{day % 5}",
        "event_type": "purchase",
        "event_ts": f"2024-{1 + day // 28:02}-{1 + day % 28:02} 10:00:00",
        "amount": 5.0,
    }
    for day in range(140)
]

THRESHOLDS = """subject_type,subject,metric,warn_above,error_above
feature,%,kolmogorov_smirnov,0.5,0.75
"""


@pytest.fixture(scope="module")
def consumer(make_dbt_project, tmp_path_factory):
    """A project with vars for all and vars for this package alone, and a model on top."""
    folder = tmp_path_factory.mktemp("consumer")
    shutil.copytree(
        PACKAGE, folder / "package", ignore=shutil.ignore_patterns("target", "dbt_packages", "logs")
    )
    project = make_dbt_project(project_dir=folder)
    settings = {
        "name": "consumer",
        "version": "1.0.0",
        "config-version": 2,
        "profile": "churn_scoring",
        "model-paths": ["models"],
        "seeds": {"churn_scoring": {"churn_drift_thresholds": {"+enabled": False}}},
        "flags": {"send_anonymous_usage_stats": False},
        "vars": {
            "churn__events_path": project.events_parquet(EVENTS),
            "churn__horizon_days": 20,
            "churn_scoring": {
                "churn__horizon_days": 14,
                "churn__eligibility_days": 28,
                "churn__training_cutoffs": ["2024-03-01"],
            },
        },
    }
    (folder / "dbt_project.yml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    packages = {"packages": [{"local": "package"}]}
    (folder / "packages.yml").write_text(yaml.safe_dump(packages), encoding="utf-8")
    (folder / "seeds").mkdir()
    (folder / "seeds" / "churn_drift_thresholds.csv").write_text(THRESHOLDS, encoding="utf-8")
    (folder / "models").mkdir()
    (folder / "models" / "at_risk.sql").write_text(
        "select user_id, cutoff_date from {{ ref('churn_examples') }} where is_score_cutoff",
        encoding="utf-8",
    )
    (folder / "models" / "asked.sql").write_text(
        "{{ config(materialized='table') }} "
        "select * from {{ churn_scoring.score_relation(ref('churn_examples'), "
        "where='is_score_cutoff', columns=['user_id'], score_column='risk') }} as scored",
        encoding="utf-8",
    )
    project.succeed("deps")
    return project


def test_the_package_builds_under_another_project(consumer):
    consumer.build(select="+at_risk", args=NO_TESTS)
    assert consumer.query("select count(*) from at_risk") == [(5,)]
    assert consumer.query("select count(*) from churn_examples") == [(10,)]


def test_a_team_replaces_the_thresholds_of_drift_by_its_own(consumer):
    consumer.build(select="+churn_score_drift", args=NO_TESTS)
    assert consumer.query("select count(*), max(error_above) from churn_drift_thresholds") == [
        (1, 0.75)
    ]


def test_scores_are_published_and_asked_for_under_another_project(consumer):
    promote_tiny(consumer)
    consumer.build(select="+int_scores_published +asked", args=NO_TESTS)
    current = read_published(consumer.root / "warehouse_published")
    rows = {name: table.rows for name, table in current.tables.items()}
    assert (rows["churn_scores"], rows["churn_scores_current"], rows["churn_unscorable"]) == (
        5,
        5,
        0,
    )
    assert rows["churn_models"] == rows["churn_champions"] == 1
    query = "from asked join '{}' using (user_id) where abs(risk - churn_probability) > 1e-5"
    path = current.tables["churn_scores_current"].path
    assert consumer.query("select count(*) " + query.format(path)) == [(0,)]


def _settings(project, **options):
    result = project.succeed(
        ["compile", "--inline", "{{ churn_scoring.churn_context() }}"], **options
    )
    return json.loads(result.results[0].node.compiled_code)["settings"]


def test_python_sees_the_vars_that_the_models_see(consumer):
    settings = _settings(consumer)
    assert settings["horizon_days"] == 14
    assert settings["eligibility_days"] == 28
    assert settings["training_cutoffs"] == {"dates": ["2024-03-01"]}
    assert settings["events_path"].endswith("events.parquet")
    assert settings["observation_days"] == 365


def test_vars_of_the_command_line_come_first(consumer):
    settings = _settings(consumer, vars={"churn__horizon_days": 7})
    assert settings["horizon_days"] == 7
    assert settings["eligibility_days"] == 28


def test_bad_vars_of_the_project_fail_at_start(consumer):
    message = consumer.build_fails(select="at_risk", vars={"churn__gap_days": -1})
    assert "churn__gap_days: got -1" in message


def test_only_public_models_may_be_referenced(consumer):
    model = consumer.project_dir / "models" / "peek.sql"
    model.write_text("select * from {{ ref('int_data_bounds') }}", encoding="utf-8")
    try:
        outcome = consumer.invoke("parse")
        assert not outcome.success
        assert "int_data_bounds" in str(outcome.exception)
    finally:
        model.unlink()
