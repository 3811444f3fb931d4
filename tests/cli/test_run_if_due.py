"""``churn-train run --if-due`` on a small warehouse and a trained champion."""

from __future__ import annotations

import datetime
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from champion import forget_champion
from cli.conftest import parse
from click.testing import Result
from retraining_example import DAY, SmallWarehouse, small_warehouse
from training_example import TINY_FLAGS, Trained

from trainer import pipeline
from trainer.retraining import RetrainingConfig, plan

Invoke = Callable[..., Result]
TRAINED_FOR = datetime.date(2024, 6, 3)
COMMAND = ["run", "--if-due", "--models-dir", "models", *TINY_FLAGS]
OPENS = "import duckdb, sys; duckdb.connect(sys.argv[1]).execute('create table t (i int)')"


@pytest.fixture
def warehouse(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> SmallWarehouse:
    """The warehouse that the champion was trained on, on the night it was trained."""
    made = small_warehouse(trained)
    monkeypatch.setattr("trainer.cli.options.make_warehouse", lambda _: made)
    return made


@pytest.fixture
def no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail when anything is exported or trained."""

    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("nothing was to be trained")

    monkeypatch.setattr("trainer.pipeline.export_snapshot", refuse)


def retraining(result: Result) -> dict[str, Any]:
    """Return the part that tells of the checks."""
    found: dict[str, Any] = parse(result)["retraining"]
    return found


def check_of(document: dict[str, Any], name: str) -> dict[str, Any]:
    """Return one check."""
    return next(check for check in document["checks"] if check["name"] == name)


def bundles() -> set[str]:
    """Return the ids of all models."""
    return {path.name for path in Path("models/bundles").iterdir()}


def test_a_fresh_champion_goes_on(
    trained: Trained, warehouse: SmallWarehouse, invoke: Invoke, no_training: None
) -> None:
    document = parse(invoke(*COMMAND, "--json"))
    assert document["was_run"] is False
    found = document["retraining"]
    assert found["is_due"] is False
    assert found["reasons"] == []
    assert [check["name"] for check in found["checks"]] == ["age", "labels", "drift", "decay"]
    for check in found["checks"]:
        assert set(check) >= {"name", "value", "limit", "is_due", "message"}
        assert check["is_due"] is False
    assert check_of(found, "age")["value"] == 0
    assert check_of(found, "labels")["value"] == 0
    assert found["champion_id"] == trained.outcome.bundle_id
    assert found["next_due_date"] == "2024-08-02"
    told = invoke(*COMMAND)
    assert told.exit_code == 0
    assert "no new model is due" in told.stdout
    assert "age" in told.stdout
    assert "no new model is due" in told.stderr


def test_age_counts_from_cutoff_to_cutoff(
    warehouse: SmallWarehouse, invoke: Invoke, no_training: None
) -> None:
    for days, reasons in ((59, []), (60, ["age"])):
        warehouse.set_score_cutoff(TRAINED_FOR + days * DAY)
        found = retraining(invoke(*COMMAND, "--dry-run", "--json"))
        assert found["reasons"] == reasons
        assert check_of(found, "age")["value"] == days


def test_labels_that_matured_since_are_counted(
    warehouse: SmallWarehouse, invoke: Invoke, no_training: None
) -> None:
    """The champion was fitted on 2,000 rows; two cutoffs of 200 were not mature then."""
    warehouse.mature(datetime.date(2024, 5, 20))
    warehouse.set_score_cutoff(datetime.date(2024, 6, 17))
    flags = ["--dry-run", "--json", "--set", "retraining.min_new_label_share=0.1"]
    found = retraining(invoke(*COMMAND, *flags))
    assert found["reasons"] == ["labels"]
    assert check_of(found, "labels")["message"].startswith("200 labels have matured since")
    off = [*flags, "--set", "retraining.min_new_label_share=0.2"]
    found = retraining(invoke(*COMMAND, *off))
    assert found["reasons"] == []
    assert found["due_dates"]["labels"] == "2024-07-01"


def test_drift_is_that_of_the_champion_at_its_newest_cutoff(
    trained: Trained, warehouse: SmallWarehouse, invoke: Invoke, no_training: None
) -> None:
    ours, today = trained.outcome.bundle_id, TRAINED_FOR + 14 * DAY
    warehouse.set_score_cutoff(today)
    warehouse.drift(ours, today - 7 * DAY, amount_365d="error")
    warehouse.drift(ours, today, amount_365d="warn", tenure_days="ok")
    warehouse.drift("another", today, amount_365d="error")
    assert retraining(invoke(*COMMAND, "--dry-run", "--json"))["reasons"] == []
    warehouse.drift(ours, today, mean_gap_days="error")
    found = retraining(invoke(*COMMAND, "--dry-run", "--json"))
    assert found["reasons"] == ["drift"]
    assert "mean_gap_days" in check_of(found, "drift")["message"]


def test_decay_is_measured_on_matured_scores(
    trained: Trained, warehouse: SmallWarehouse, invoke: Invoke, no_training: None
) -> None:
    ours, generator = trained.outcome.bundle_id, np.random.default_rng(0)
    labels = generator.random(4_000) < 0.37
    row = {
        **{"bundle_id": ours, "user_count": 4_000, "churned_count": int(labels.sum())},
        **{"auroc": 0.5, "log_loss": 0.8, "calibration_error": 0.3},
        **{"is_out_of_time": True, "cutoff_date": TRAINED_FOR},
    }
    warehouse.load("churn_model_performance", pa.Table.from_pylist([row]))
    outcomes = {
        **{"bundle_id": [ours] * 4_000, "churn_probability": generator.random(4_000)},
        **{"is_churned": labels, "cutoff_date": [TRAINED_FOR] * 4_000},
    }
    warehouse.load("churn_score_outcomes", pa.table(outcomes))
    bins = [
        {
            **{"bundle_id": ours, "bin_number": number, "user_count": 400},
            **{"mean_probability": number / 11, "cutoff_date": TRAINED_FOR},
        }
        for number in range(1, 11)
    ]
    warehouse.load("churn_calibration_bins", pa.Table.from_pylist(bins))
    found = retraining(invoke(*COMMAND, "--dry-run", "--json"))
    measures = {one["name"]: one for one in check_of(found, "decay")["measures"]}
    assert {name for name, one in measures.items() if one["is_due"]} == set(measures)
    tested = trained.outcome.metrics["test"]["bert"]
    expected = tested["auroc"]["value"] - 0.5
    assert measures["auroc_decay"]["value"] == pytest.approx(expected, abs=1e-9)
    warehouse.execute("update churn_model_performance set is_out_of_time = false")
    found = retraining(invoke(*COMMAND, "--dry-run", "--json"))
    assert found["reasons"] == []


def test_tables_of_an_older_build_are_unknown_and_no_error(
    trained: Trained, warehouse: SmallWarehouse, invoke: Invoke, no_training: None
) -> None:
    warehouse.execute("drop table churn_score_drift")
    warehouse.execute("drop table churn_calibration_bins")
    warehouse.execute("drop table churn_score_outcomes")
    warehouse.execute("alter table churn_model_performance drop column is_out_of_time")
    found = retraining(invoke(*COMMAND, "--json"))
    assert found["reasons"] == []
    for name in ("drift", "decay"):
        assert check_of(found, name)["value"] is None
        assert check_of(found, name)["message"].startswith("unknown: ")
        assert "dbt build" in check_of(found, name)["message"]
    del warehouse.context.relations["churn_score_drift"]
    assert check_of(retraining(invoke(*COMMAND, "--json")), "drift")["value"] is None


@pytest.mark.parametrize("broken", ["none", "damaged", "other settings"])
def test_nobody_who_can_score_is_a_reason(
    trained: Trained, warehouse: SmallWarehouse, invoke: Invoke, no_training: None, broken: str
) -> None:
    if broken == "none":
        forget_champion(Path("models"))
        expected, message = "no_champion", "no champion yet"
    elif broken == "damaged":
        weights = Path("models/bundles", trained.outcome.bundle_id, "model.safetensors")
        weights.write_bytes(weights.read_bytes()[:-1])
        expected, message = "unreadable", "model.safetensors"
    else:
        warehouse.context.settings["horizon_days"] = 14
        expected, message = "other_settings", "horizon_days"
    found = retraining(invoke(*COMMAND, "--dry-run", "--json"))
    assert found["is_due"] is True
    assert found["reasons"] == [expected]
    assert message in found["checks"][0]["message"]
    assert f"{expected}  {expected}  " in invoke(*COMMAND, "--dry-run").stdout


def test_what_is_due_is_trained_once_and_not_again_the_next_night(
    trained: Trained, warehouse: SmallWarehouse, invoke: Invoke
) -> None:
    """A refused candidate waits; nothing changes for the champion."""
    today = TRAINED_FOR + 14 * DAY
    warehouse.mature(datetime.date(2024, 5, 20))
    warehouse.set_score_cutoff(today)
    warehouse.drift(trained.outcome.bundle_id, today, amount_365d="error")
    before = bundles()
    refused = invoke(*COMMAND, "--json", "--set", "gate.min_auroc=1.1")
    assert refused.exit_code == 3
    document = json.loads(refused.stdout)
    assert document["was_run"] is True
    assert document["retraining"]["reasons"] == ["drift"]
    assert document["bundle_id"] in bundles() - before
    assert not document["is_champion"]

    for days, is_due in ((0, False), (6, False), (7, True)):
        warehouse.set_score_cutoff(today + days * DAY)
        found = retraining(invoke(*COMMAND, "--dry-run", "--json"))
        assert found["reasons"] == ["drift"]
        assert found["is_due"] is is_due
        assert found["champion_id"] == trained.outcome.bundle_id
    warehouse.set_score_cutoff(today + DAY)
    waiting = invoke(*COMMAND)
    assert waiting.exit_code == 0
    assert f"{document['bundle_id']} was trained only lately: waiting until" in waiting.stdout
    assert bundles() - before == {document["bundle_id"]}


def test_the_file_is_free_while_training(
    trained: Trained, warehouse: SmallWarehouse, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process may write the warehouse from the moment the snapshot is exported."""
    warehouse.set_score_cutoff(TRAINED_FOR + 60 * DAY)
    opened: list[int] = []
    fit_step = pipeline.fit_step

    def fit_while_dbt_builds(*arguments: Any, **options: Any) -> Any:
        command = [sys.executable, "-c", OPENS, str(warehouse.path)]
        opened.append(subprocess.run(command, check=True).returncode)
        return fit_step(*arguments, **options)

    monkeypatch.setattr("trainer.pipeline.fit_step", fit_while_dbt_builds)
    document = parse(invoke(*COMMAND, "--json"))
    assert opened == [0]
    assert document["was_run"] is True
    assert document["retraining"]["reasons"] == ["age"]
    assert document["is_champion"]
    again = parse(invoke(*COMMAND, "--json"))
    assert again["was_run"] is False
    assert check_of(again["retraining"], "age")["value"] == 0


def test_an_old_bundle_counts_from_its_newest_label(
    trained: Trained, warehouse: SmallWarehouse, no_training: None
) -> None:
    """Bundles of earlier releases do not say for which cutoff they were trained."""
    from trainer.retraining.champion import trained_as_of

    settings = {"gap_days": 0, "horizon_days": 28}
    rows = {"cutoffs": ["2024-05-06"]}
    training = {
        **{"refit": "all", "splits": {"train": rows, "valid": rows}},
        "fits": {"refit": rows, "final": rows},
    }
    assert trained_as_of(training, settings) == datetime.date(2024, 6, 3)
    assert trained_as_of({**training, "score_cutoff": "2024-06-05"}, settings) == datetime.date(
        2024, 6, 5
    )
    assert trained_as_of({}, settings) is None


def test_a_plan_writes_nothing(trained: Trained, warehouse: SmallWarehouse) -> None:
    before = {path: path.stat().st_mtime_ns for path in trained.root.rglob("*") if path.is_file()}
    found = plan(warehouse, RetrainingConfig(), trained.workspace.models_dir)  # type: ignore[arg-type]
    assert not found.is_due
    after = {path: path.stat().st_mtime_ns for path in trained.root.rglob("*") if path.is_file()}
    before.pop(warehouse.path), after.pop(warehouse.path)
    assert after == before


def test_force_and_if_due_exclude_each_other(invoke: Invoke) -> None:
    result = invoke("run", "--if-due", "--force")
    assert result.exit_code == 2
    assert "--force and --if-due" in result.stderr


def test_no_models_folder_at_all_is_no_champion(
    trained: Trained, warehouse: SmallWarehouse, invoke: Invoke, no_training: None
) -> None:
    shutil.rmtree("models")
    assert retraining(invoke(*COMMAND, "--dry-run", "--json"))["reasons"] == ["no_champion"]
