"""`churn-score batch` on an export of churn_examples gives the scores that dbt wrote."""

from __future__ import annotations

import shutil

import pyarrow.parquet as pq
import pytest
import yaml
from click.testing import CliRunner
from factories import model_settings, tiny_bundle

from churn_udf.bundle_store import set_champion
from churn_udf.cli import main
from churn_udf.contracts.bundle import FeatureSpec

SETTINGS = {"observation_days": 60, "eligibility_days": 60, "horizon_days": 10}


def features_of(project) -> list[FeatureSpec]:
    path = project.project_dir / "models" / "marts" / "_examples__models.yml"
    models = yaml.safe_load(path.read_text(encoding="utf-8"))["models"]
    (examples,) = [model for model in models if model["name"] == "churn_examples"]
    groups = {
        column["name"]: (column.get("config") or {}).get("meta", {}).get("feature_group")
        for column in examples["columns"]
    }
    return [FeatureSpec(name=name, group=group) for name, group in groups.items() if group]


@pytest.fixture(scope="module")
def scored(module_dbt_project):
    """A warehouse in which a champion has scored 30 users."""
    project = module_dbt_project
    project.vars = {f"churn__{name}": value for name, value in SETTINGS.items()}
    project.vars["churn__training_cutoffs"] = ["2024-02-15"]
    project.vars["churn__events_path"] = project.events_parquet(
        [
            {
                "user_id": f"u{user:02d}",
                "event_type": "purchase",
                "event_ts": f"2024-02-{day:02d} 10:00:00",
                "amount": 10.0 + user,
                "item_id": f"i{day}",
                "category": ["dairy", "bakery", "fruit"][day % 3],
            }
            for user in range(30)
            for day in range(1, 28, 2 + user)
        ]
    )
    bundle = tiny_bundle(project.models_dir, features_of(project), model_settings(**SETTINGS))
    set_champion(project.models_dir, bundle.bundle_id, reason="test")
    project.build(args=["--exclude-resource-type", "test", "unit_test"])
    return project


@pytest.mark.integration
def test_an_export_as_it_is_gets_the_scores_of_the_warehouse(scored, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(scored.models_dir, "models")
    scored.execute(
        f"copy (from churn_examples where is_score_cutoff) to '{tmp_path}/examples.parquet'"
    )
    arguments = ["batch", "-i", "examples.parquet", "-o", "scores.parquet"]
    result = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.stderr
    found = {row["user_id"]: row for row in pq.read_table("scores.parquet").to_pylist()}
    columns = (
        *("user_id", "churn_probability", "churn_logit", "risk_tier", "is_flagged", "top_reason"),
        *("bundle_id", "input_hash", "cutoff_date"),
    )
    rows = scored.query(f"select {', '.join(columns)} from churn_scores")
    assert len(rows) == len(found) == 30
    for row in rows:
        expected = dict(zip(columns, row, strict=True))
        mine = found[expected["user_id"]]
        for name in ("churn_probability", "churn_logit"):
            assert mine[name] == pytest.approx(expected.pop(name), abs=1e-5)
        assert {name: mine[name] for name in expected} == expected
