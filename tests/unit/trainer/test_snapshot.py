from __future__ import annotations

import datetime
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from churn_udf.contracts.bundle import FeatureSpec
from churn_udf.contracts.snapshot import snapshot_schema
from churn_udf.errors import ChurnError, SettingsError, SnapshotSchemaError, TextVersionError
from trainer.data.export import write_snapshot
from trainer.data.snapshot import (
    Snapshot,
    SnapshotConfig,
    find_snapshot,
    list_snapshots,
    snapshot_identity,
)
from trainer.data.synthetic import SETTINGS, synthetic_snapshot
from trainer.errors import SnapshotIntegrityError, SnapshotNotFoundError

FEATURES = (FeatureSpec(name="amount_30d", group="spend"),)
CUTOFF = datetime.date(2024, 1, 1)


def batch(
    users: list[str | None],
    *,
    values: list[float | None] | None = None,
    churned: bool | None = True,
    date: datetime.date = CUTOFF,
    **replaced: pa.Array,
) -> pa.RecordBatch:
    count = len(users)
    columns = {
        "user_id": pa.array(users, pa.string()),
        "cutoff_date": pa.array([date] * count, pa.date32()),
        "behavior_text": pa.array(["visit dairy"] * count),
        "review_text_recent": pa.array([""] * count),
        "amount_30d": pa.array(values or [1.5] * count, pa.float64()),
        "is_label_mature": pa.array([True] * count),
        "is_churned": pa.array([churned] * count, pa.bool_()),
        "input_hash": pa.array([f"{user}" for user in users]),
    }
    return pa.RecordBatch.from_pydict({**columns, **replaced})


def write(folder: Path, batches: list[pa.RecordBatch], **options: Any) -> Snapshot:
    arguments = {
        "features": FEATURES,
        "settings": SETTINGS,
        "score_cutoff_date": CUTOFF,
        "provenance": {"project": "test"},
        "snapshots_dir": folder,
        **options,
    }
    return write_snapshot(batches, **arguments)


def test_rows_come_back_as_written_over_shards_and_batches(tmp_path: Path) -> None:
    batches = [batch(["a", "b", "c"]), batch(["d"]), batch([]), batch(["e", "f", "g"])]
    snapshot = write(tmp_path, batches, config=SnapshotConfig(rows_per_shard=2))
    assert [shard["rows"] for shard in snapshot.document["shards"]] == [2, 2, 2, 1]
    assert snapshot.table.column("user_id").to_pylist() == list("abcdefg")
    assert snapshot.table.schema == snapshot_schema(["amount_30d"])
    assert snapshot.num_rows == 7


def test_same_rows_give_the_same_id_and_are_kept(tmp_path: Path) -> None:
    first = write(tmp_path, [batch(["a", "b"])], provenance={"invocation_id": "1"})
    again = write(tmp_path, [batch(["a"]), batch(["b"])], provenance={"invocation_id": "2"})
    assert first.snapshot_id == again.snapshot_id
    assert again.document["provenance"] == {"invocation_id": "1"}
    assert len(list_snapshots(tmp_path)) == 1


@pytest.mark.parametrize(
    "options",
    [
        {"settings": {**SETTINGS, "horizon_days": 29}},
        {"features": (FeatureSpec(name="amount_30d", group="basket"),)},
        {"score_cutoff_date": datetime.date(2024, 1, 2)},
    ],
    ids=["settings", "features", "score-cutoff"],
)
def test_anything_that_matters_changes_the_id(tmp_path: Path, options: dict[str, Any]) -> None:
    plain = write(tmp_path, [batch(["a"])])
    assert write(tmp_path, [batch(["a"])], **options).snapshot_id != plain.snapshot_id


def test_settings_of_the_place_do_not_change_the_id(tmp_path: Path) -> None:
    plain = write(tmp_path, [batch(["a"])])
    moved = write(tmp_path, [batch(["a"])], settings={**SETTINGS, "events_path": "b.parquet"})
    assert moved.snapshot_id == plain.snapshot_id


def test_labels_and_features_are_nan_where_unknown(tmp_path: Path) -> None:
    immature = batch(
        ["b"], churned=None, is_label_mature=pa.array([False]), date=datetime.date(2024, 1, 2)
    )
    snapshot = write(tmp_path, [batch(["a"], values=[None]), immature])
    np.testing.assert_array_equal(snapshot.labels, [1.0, np.nan])
    np.testing.assert_array_equal(snapshot.feature_matrix, [[np.nan], [1.5]])
    cutoffs = snapshot.document["cutoffs"]
    assert [cutoff["base_rate"] for cutoff in cutoffs] == [1.0, None]
    assert [cutoff["mature_rows"] for cutoff in cutoffs] == [1, 0]


def test_texts_follow_the_rows_asked_for(tmp_path: Path) -> None:
    snapshot = synthetic_snapshot(tmp_path, num_users=5, rows_per_shard=7)
    rows = np.array([11, 2, 11])
    behavior, review = snapshot.texts(rows)
    assert behavior.to_pylist() == [
        snapshot.table.column("behavior_text")[int(row)].as_py() for row in rows
    ]
    assert len(review) == 3
    empty, _ = snapshot.texts(np.array([], dtype=np.int64))
    assert empty.to_pylist() == []


def test_odd_text_survives(tmp_path: Path) -> None:
    odd = ["emoji 😀 \"quote\" 'x'; drop table", "שלום", "x" * 1_000_000]
    snapshot = write(tmp_path, [batch(["a", "b", "c"], review_text_recent=pa.array(odd))])
    assert snapshot.table.column("review_text_recent").to_pylist() == odd


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        pytest.param(batch([]), "no row", id="no-rows"),
        pytest.param(batch([None]), "1 nulls", id="null-user"),
        pytest.param(batch(["a"], values=[float("inf")]), "infinite", id="infinite"),
        pytest.param(batch(["a"], churned=None), "is_churned is null", id="null-label"),
        pytest.param(batch(["a"]).drop_columns(["amount_30d"]), "missing", id="no-column"),
        pytest.param(
            batch(["a"], amount_30d=pa.array(["many"])), "'amount_30d' is string", id="wrong-type"
        ),
    ],
)
def test_rows_that_break_the_contract_are_refused(
    tmp_path: Path, rows: pa.RecordBatch, message: str
) -> None:
    with pytest.raises(SnapshotSchemaError, match=message):
        write(tmp_path, [rows])
    assert list(tmp_path.iterdir()) == []


def test_settings_without_windows_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="observation_days"):
        write(tmp_path, [batch(["a"])], settings={})


def test_failed_export_leaves_no_snapshot(tmp_path: Path) -> None:
    def broken() -> Any:
        yield batch(["a"])
        raise RuntimeError("the warehouse went away")

    with pytest.raises(RuntimeError, match="went away"):
        write(tmp_path, broken())
    assert list(tmp_path.iterdir()) == []


def flip_byte(path: Path) -> None:
    shard = path / "part-00000.arrow"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)


def edit(
    change: Callable[[dict[str, Any]], None], *, rehash: bool = False
) -> Callable[[Path], None]:
    def apply(path: Path) -> None:
        file = path / "snapshot.json"
        document = json.loads(file.read_text())
        change(document)
        if rehash:
            document["snapshot_id"] = snapshot_identity(document)
        file.write_text(json.dumps(document))

    return apply


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        pytest.param(flip_byte, SnapshotIntegrityError, "damaged", id="flipped-byte"),
        pytest.param(
            lambda path: (path / "part-00000.arrow").unlink(),
            SnapshotIntegrityError,
            "missing",
            id="missing-shard",
        ),
        pytest.param(
            lambda path: (path / "snapshot.json").unlink(),
            SnapshotNotFoundError,
            "not a snapshot",
            id="no-description",
        ),
        pytest.param(
            lambda path: (path / "snapshot.json").write_text("{"),
            SnapshotIntegrityError,
            "not JSON",
            id="broken-description",
        ),
        pytest.param(
            lambda path: (path / "snapshot.json").write_text('{"snapshot_version": 1}'),
            SnapshotIntegrityError,
            "not a snapshot description",
            id="empty-description",
        ),
        pytest.param(
            edit(lambda document: document.update(snapshot_version=99)),
            SnapshotSchemaError,
            "format 99",
            id="other-format",
        ),
        pytest.param(
            edit(lambda document: document["settings"].update(horizon_days=1)),
            SnapshotIntegrityError,
            "changed after export",
            id="edited-settings",
        ),
        pytest.param(
            edit(lambda document: document["settings"].update(text_version=2), rehash=True),
            TextVersionError,
            "text version 2",
            id="other-text",
        ),
        pytest.param(
            edit(lambda document: document["features"][0].update(name="other"), rehash=True),
            SnapshotSchemaError,
            "promises",
            id="other-columns",
        ),
        pytest.param(
            edit(lambda document: document["shards"][0].update(rows=5), rehash=True),
            SnapshotIntegrityError,
            "rows",
            id="other-count",
        ),
    ],
)
def test_damaged_snapshot_is_refused_with_a_next_step(
    tmp_path: Path, damage: Callable[[Path], None], error: type[ChurnError], message: str
) -> None:
    snapshot = write(tmp_path, [batch(["a", "b"])])
    damage(snapshot.path)
    with pytest.raises(error, match=message) as caught:
        Snapshot.open(snapshot.path)
    assert "churn-train snapshot" in str(caught.value)


def test_export_replaces_a_damaged_snapshot(tmp_path: Path) -> None:
    snapshot = write(tmp_path, [batch(["a", "b"])])
    flip_byte(snapshot.path)
    assert write(tmp_path, [batch(["a", "b"])]).snapshot_id == snapshot.snapshot_id
    Snapshot.open(snapshot.path)


def test_references_find_one_snapshot(tmp_path: Path) -> None:
    with pytest.raises(SnapshotNotFoundError, match="no snapshot in"):
        find_snapshot(tmp_path, None)
    snapshot = write(tmp_path, [batch(["a"])])
    assert find_snapshot(tmp_path, None) == snapshot.path
    assert find_snapshot(tmp_path, snapshot.snapshot_id[:6]) == snapshot.path
    other = synthetic_snapshot(tmp_path, num_users=10, seed=99)
    assert find_snapshot(tmp_path, None) == other.path
    os.utime(snapshot.path / "snapshot.json")  # what exporting the same rows again does
    assert find_snapshot(tmp_path, None) == snapshot.path
    assert find_snapshot(tmp_path / "elsewhere", str(snapshot.path)) == snapshot.path
    with pytest.raises(SnapshotNotFoundError, match="found: "):
        find_snapshot(tmp_path, "zzz")
    write(tmp_path, [batch(["b"])])
    with pytest.raises(SnapshotNotFoundError, match="more than one"):
        find_snapshot(tmp_path, "")


def test_what_a_killed_export_left_is_removed_a_day_later(tmp_path: Path) -> None:
    old, fresh = tmp_path / ".partial-old", tmp_path / ".partial-fresh"
    for folder, age in ((old, 25 * 3600), (fresh, 3600)):
        folder.mkdir()
        (folder / "part-00000.arrow").write_text("half")
        os.utime(folder, (time.time() - age,) * 2)
    write(tmp_path, [batch(["a"])])
    assert not old.exists()
    assert fresh.exists()
    assert len(list_snapshots(tmp_path)) == 1


def test_synthetic_users_repeat_by_seed(tmp_path: Path) -> None:
    first = synthetic_snapshot(tmp_path, num_users=20, seed=1)
    assert synthetic_snapshot(tmp_path, num_users=20, seed=1).snapshot_id == first.snapshot_id
    assert synthetic_snapshot(tmp_path, num_users=20, seed=2).snapshot_id != first.snapshot_id


def test_an_earlier_view_has_the_rows_of_its_time(tmp_path: Path) -> None:
    whole = synthetic_snapshot(tmp_path, num_users=5, num_cutoffs=8)
    cutoffs = np.unique(whole.cutoff_dates)
    earlier = whole.until(cutoffs[4].item())
    assert earlier.num_rows == 5 * 5
    assert earlier.table.equals(whole.table.slice(0, 25))
    assert earlier.document["score_cutoff_date"] == str(cutoffs[4])
    np.testing.assert_array_equal(earlier.labels, whole.labels[:25])
    ids = {whole.until(cutoff.item()).snapshot_id for cutoff in cutoffs}
    assert len(ids | {whole.snapshot_id}) == len(cutoffs) + 1
    assert whole.until(cutoffs[4].item()).snapshot_id == earlier.snapshot_id
    assert whole.document["score_cutoff_date"] == str(cutoffs[-1])


def test_an_earlier_view_needs_one_of_the_cutoffs(tmp_path: Path) -> None:
    whole = synthetic_snapshot(tmp_path, num_users=5, num_cutoffs=3)
    with pytest.raises(SnapshotNotFoundError, match="no cutoff 2024-01-02; it has 2024-01-01"):
        whole.until(datetime.date(2024, 1, 2))
