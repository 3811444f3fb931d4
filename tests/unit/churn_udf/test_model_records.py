"""What is known of every model, pruned ones included."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from fake_bundles import fake_bundle

from churn_udf.model_records import read_records, trained_until
from churn_udf.registry import CHAMPION, SHADOW, move

SETTINGS = {"gap_days": 2, "horizon_days": 30}


def part(*cutoffs: str, rows: int = 10) -> dict[str, Any]:
    return {"cutoffs": list(cutoffs), "rows": rows, "base_rate": 0.25}


TRAINING = {
    "run_id": "run1",
    "ensemble": "gbm",
    "refit": "all",
    "splits": {
        "train": part("2024-01-01", "2024-02-01"),
        "valid": part("2024-03-01"),
        "test": part("2024-04-01"),
    },
    "fits": {"refit": part("2024-02-10"), "final": part("2024-01-01", "2024-04-01", rows=99)},
}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param({}, date(2024, 5, 3), id="all"),
        pytest.param({"refit": "test"}, date(2024, 4, 2), id="test"),
        pytest.param({"refit": "none"}, date(2024, 4, 2), id="none"),
        pytest.param({"trained_until": "2024-07-07"}, date(2024, 7, 7), id="stated"),
        pytest.param({"refit": "other"}, None, id="unknown-refit"),
        pytest.param({"fits": {}}, None, id="no-fits"),
        pytest.param({"splits": {}}, None, id="no-splits"),
    ],
)
def test_the_newest_label_horizon_that_was_learned_from(
    changes: dict[str, Any], expected: date | None
) -> None:
    assert trained_until({**TRAINING, **changes}, SETTINGS) == expected


def test_records_tell_stage_training_and_test(tmp_path: Path) -> None:
    tested = {"auroc": {"value": 0.8}, "brier_score": {"value": None}}
    metrics = json.dumps({"model": "gbm", "test": {"gbm": tested}})
    first = fake_bundle(tmp_path, 1, metrics=metrics, **TRAINING)
    second = fake_bundle(tmp_path, 2)
    move(tmp_path, first, CHAMPION, reason="good")
    move(tmp_path, second, SHADOW, reason="to see")
    found = {record.bundle_id: record for record in read_records(tmp_path)}
    assert list(found) == sorted([first, second])
    champion, shadow = found[first], found[second]
    assert (champion.stage, champion.is_champion, champion.stage_reason) == (
        *("champion", True),
        "good",
    )
    assert (champion.model_kind, champion.run_id, champion.is_pruned) == ("gbm", "run1", False)
    assert (champion.training_row_count, champion.training_base_rate) == (99, 0.25)
    assert champion.last_training_cutoff_date == date(2024, 4, 1)
    assert champion.test_cutoff_date == date(2024, 4, 1)
    assert (champion.test_auroc, champion.test_brier_score) == (0.8, None)
    assert (shadow.stage, shadow.model_kind, shadow.test_auroc) == ("shadow", "bert", None)


def test_a_candidate_is_one_since_it_was_made(tmp_path: Path) -> None:
    fake_bundle(tmp_path)
    (record,) = read_records(tmp_path)
    assert (record.stage, record.stage_since) == ("candidate", record.created_at)


def test_an_unreadable_bundle_is_listed_without_facts(tmp_path: Path) -> None:
    bundle_id = fake_bundle(tmp_path, **TRAINING)
    (tmp_path / "bundles" / bundle_id / "manifest.json").write_text("{")
    (record,) = read_records(tmp_path)
    assert (record.bundle_id, record.run_id, record.created_at) == (bundle_id, None, None)
