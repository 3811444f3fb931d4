"""A search never sees the test split."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from training_example import tiny_config
from tune_example import UNPRUNED, FakeFit, facts, run

from trainer.data.snapshot import Snapshot
from trainer.data.splits import make_splits
from trainer.tune.config import TuneConfig
from trainer.tune.search import without_test


def test_rows_from_the_test_on_do_not_exist_for_a_trial(
    snapshot: Snapshot, fake: FakeFit, tmp_path: Path
) -> None:
    splits = make_splits(snapshot, tiny_config().splits, seed=0)
    run(snapshot, tmp_path, dataclasses.replace(UNPRUNED, num_trials=1))
    ((seen, seen_splits),) = fake.seen
    assert len(splits.test) > 0
    assert len(seen_splits.test) == 0
    assert "test" not in seen_splits.facts["splits"]
    assert seen.num_rows == splits.test[0]
    for name in ("train", "valid", "pretrain"):
        np.testing.assert_array_equal(getattr(seen_splits, name), getattr(splits, name))
        assert getattr(splits, name).max() < seen.num_rows
    rows = splits.valid
    np.testing.assert_array_equal(seen.labels[rows], snapshot.labels[rows])
    np.testing.assert_array_equal(seen.feature_matrix[rows], snapshot.feature_matrix[rows])


def test_poisoned_test_split_changes_nothing(snapshot: Snapshot, tmp_path: Path) -> None:
    """Real training: test labels flipped, features and texts replaced, and the same search."""
    splits = make_splits(snapshot, tiny_config().splits, seed=0)
    poisoned = poison(snapshot, splits.test)
    flipped = make_splits(poisoned, tiny_config().splits, seed=0).facts["splits"]["test"]
    assert flipped["base_rate"] == pytest.approx(1.0 - splits.facts["splits"]["test"]["base_rate"])
    assert np.isnan(poisoned.feature_matrix[splits.test]).all()
    config = tiny_config(fit__numeric_epochs=2, fit__min_examples=0)
    settings = TuneConfig(num_trials=3, pruner="median")
    clean = run(snapshot, tmp_path / "clean", settings, config=config)
    dirty = run(poisoned, tmp_path / "dirty", settings, config=config)
    assert facts(dirty) == facts(clean)
    assert len({row.value for row in clean.trials}) == 3
    for row in clean.trials:
        history = (clean.folder / "trials" / f"{row.number:04d}/seed-0/history.jsonl").read_text()
        assert f'"valid_loss": {row.value}' in history


def poison(snapshot: Snapshot, rows: np.ndarray[Any, Any]) -> Snapshot:
    """Spoil all that a trial could read of these rows and of those after them."""
    table, first = snapshot.table, int(rows[0])
    for index, field in enumerate(table.schema):
        values = table.column(index).to_pylist()
        tail: list[Any] | None = None
        if field.name == "is_churned":
            tail = [None if value is None else not value for value in values[first:]]
        elif field.name in snapshot.feature_names:
            tail = [float("nan")] * (len(values) - first)
        elif field.name in ("behavior_text", "review_text_recent"):
            tail = ["poison"] * (len(values) - first)
        if tail is not None:
            column = pa.array([*values[:first], *tail], field.type)
            table = table.set_column(index, field, column)
    return dataclasses.replace(snapshot, table=table)


def test_without_test_is_no_copy(snapshot: Snapshot) -> None:
    splits = make_splits(snapshot, tiny_config().splits, seed=0)
    cut, _ = without_test(snapshot, splits)
    assert cut.snapshot_id == snapshot.snapshot_id
    assert max(cut.cutoff_dates) < min(snapshot.cutoff_dates[splits.test])
