"""Checks of what a candidate learned from."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest
from factories import tiny_bundle
from training_example import Trained

from churn_udf.bundles import Bundle
from churn_udf.contracts.settings import ModelSettings
from trainer.data.snapshot import Snapshot
from trainer.release.gate.evidence import find_snapshot_of, newest_matured
from trainer.release.gate.snapshot_checks import files_check, labels_check, settings_check


def with_labels(
    snapshot: Snapshot, rows: Sequence[int], *, is_mature: bool, is_churned: bool | None
) -> Snapshot:
    """Return the snapshot with other labels in some rows."""
    table = snapshot.table
    for name, value in (("is_label_mature", is_mature), ("is_churned", is_churned)):
        values = table.column(name).to_pylist()
        for row in rows:
            values[row] = value
        index = table.schema.get_field_index(name)
        table = table.set_column(index, name, pa.array(values, pa.bool_()))
    return dataclasses.replace(snapshot, table=table)


@pytest.fixture
def bundle(trained: Trained) -> Bundle:
    snapshot = trained.snapshot
    return tiny_bundle(trained.workspace.models_dir, snapshot.features, snapshot.model_settings)


def test_label_may_be_told_once_its_horizon_has_ended(trained: Trained) -> None:
    newest = newest_matured(trained.snapshot)
    assert newest == datetime.date(2024, 5, 6)
    end = newest + datetime.timedelta(days=28)
    for days, early in ((1, 0), (0, 0), (-1, 200)):
        check = labels_check(trained.snapshot, end + datetime.timedelta(days=days))
        assert check.value == early
        assert check.is_passed == (early == 0)


@pytest.mark.parametrize("data_end_date", [None, datetime.date(2024, 6, 3)])
@pytest.mark.parametrize(
    ("is_mature", "is_churned"), [(False, True), (True, True)], ids=["leaked", "called-mature"]
)
def test_label_of_an_open_horizon_is_refused(
    trained: Trained, data_end_date: datetime.date | None, is_mature: bool, is_churned: bool
) -> None:
    snapshot = trained.snapshot
    open_row = int(np.flatnonzero(np.isnan(snapshot.labels))[-1])
    changed = with_labels(snapshot, [open_row], is_mature=is_mature, is_churned=is_churned)
    check = labels_check(changed, data_end_date)
    assert (check.value, check.limit, check.is_passed) == (1.0, 0.0, False)


def test_missing_label_of_a_past_horizon_is_refused(trained: Trained) -> None:
    changed = with_labels(trained.snapshot, [0, 1], is_mature=True, is_churned=None)
    check = labels_check(changed, None)
    assert (check.value, check.is_passed) == (2.0, False)


def test_settings_are_compared_with_every_side(trained: Trained, bundle: Bundle) -> None:
    snapshot = trained.snapshot
    names = snapshot.feature_names
    mine = snapshot.model_settings
    assert settings_check(bundle, snapshot, mine, names).is_passed
    assert settings_check(bundle, None, None, None).is_passed
    other: ModelSettings = dataclasses.replace(mine, gap_days=3)
    check = settings_check(bundle, snapshot, other, names[::-1])
    assert (check.value, check.is_passed) == (2.0, False)
    assert "gap_days 0 against 3 of the warehouse" in check.message
    assert "other features than the warehouse" in check.message


def test_another_snapshot_than_the_bundle_states_is_refused(
    trained: Trained, bundle: Bundle
) -> None:
    check = files_check(bundle, trained.snapshot, "", "refuse")
    assert not check.is_passed
    assert "is not test, which the bundle learned from" in check.message
    assert not files_check(bundle, None, "part-00000.arrow is damaged", "allow").is_passed
    assert files_check(bundle, None, "", "allow").is_passed


def test_snapshot_is_found_through_the_run_or_by_its_name(trained: Trained) -> None:
    workspace, outcome = trained.workspace, trained.outcome
    training = {"run_id": outcome.run_id, "snapshot_id": outcome.snapshot_id}
    expected = trained.snapshot.path.resolve()
    for runs_dir, snapshots_dir in (
        (workspace.runs_dir, None),
        (None, workspace.snapshots_dir),
        (workspace.runs_dir, trained.root / "nowhere"),
    ):
        found = find_snapshot_of(training, runs_dir, snapshots_dir)
        assert found is not None
        assert found.resolve() == expected
    assert find_snapshot_of(training, None, None) is None
    assert find_snapshot_of({}, workspace.runs_dir, workspace.snapshots_dir) is None
    other = {**training, "snapshot_id": "0" * 16}
    assert find_snapshot_of(other, workspace.runs_dir, workspace.snapshots_dir) is None
