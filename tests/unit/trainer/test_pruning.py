"""Pruning: files of models that nobody needs go, what is known of them stays."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from fake_bundles import fake_bundle

from churn_udf.bundle_store import list_bundle_ids
from churn_udf.errors import BundleNotFoundError, StorageError
from churn_udf.model_records import read_records
from churn_udf.models_location import FolderStore, UrlStore, cache_folder, store_of
from churn_udf.registry import CHAMPION, SHADOW, move, note_pruned, read_registry, roll_back
from trainer.release import pruning
from trainer.release.model_facts import describe_model
from trainer.release.pruning import Pruning, prune_models


@pytest.fixture(params=["folder", "memory"])
def models_dir(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: Any) -> Iterator[Any]:
    if request.param == "folder":
        yield tmp_path / "models"
        return
    import fsspec

    monkeypatch.setenv("CHURN_CACHE_DIR", str(tmp_path / "cache"))
    yield "memory://prune-test/models"
    fsspec.filesystem("memory").rm("/prune-test", recursive=True)


def prune(models_dir: Any, keep: int = 0, **options: Any) -> Pruning:
    return prune_models(models_dir, keep=keep, reason="test", **options)


def promoted(models_dir: Any, *seeds: int) -> list[str]:
    """Promote bundles one after the other."""
    ids = [fake_bundle(models_dir, seed, run_id=f"run{seed}") for seed in seeds]
    for bundle_id in ids:
        move(models_dir, bundle_id, CHAMPION, reason="test")
    return ids


def test_files_of_what_nobody_needs_go(models_dir: Any) -> None:
    first, second, third = promoted(models_dir, 1, 2, 3)
    shadow, waiting = fake_bundle(models_dir, 4), fake_bundle(models_dir, 5)
    move(models_dir, shadow, SHADOW, reason="test")
    size = sum(store_of(models_dir).sizes("bundles").values())
    planned = prune(models_dir, dry_run=True)
    assert list_bundle_ids(models_dir) == tuple(sorted([first, second, third, shadow, waiting]))
    done = prune(models_dir)
    assert {one.bundle_id: one.stage for one in done.pruned} == {
        first: "retired",
        waiting: "candidate",
    }
    assert done.pruned == planned.pruned
    assert size - done.byte_count == sum(store_of(models_dir).sizes("bundles").values())
    assert done.kept_ids == list_bundle_ids(models_dir) == tuple(sorted([second, third, shadow]))
    assert prune(models_dir).pruned == ()
    if isinstance(models_dir, str):
        copies = (cache_folder(models_dir) / "bundles").iterdir()
        assert {path.name for path in copies} == {second, third, shadow}
    assert roll_back(models_dir, reason="test").bundle_id == second


def test_what_is_known_of_a_pruned_model_stays(models_dir: Any) -> None:
    first, *_ = promoted(models_dir, 1, 2, 3)
    before = {record.bundle_id: record for record in read_records(models_dir)}[first]
    prune(models_dir)
    after = {record.bundle_id: record for record in read_records(models_dir)}[first]
    assert (after.is_pruned, after.stage, after.stage_reason) == (True, "retired", "test")
    assert (after.run_id, after.created_at) == (before.run_id, before.created_at) != (None, None)
    facts = describe_model(models_dir, first)
    assert (facts["is_pruned"], facts["training"]["run_id"], facts["byte_count"]) == (
        *(True, "run1"),
        0,
    )
    assert [entry["action"] for entry in facts["history"]] == ["move", "move", "prune"]
    with pytest.raises(BundleNotFoundError):
        move(models_dir, first, CHAMPION, reason="test")


def test_the_newest_are_kept(models_dir: Any) -> None:
    ids = promoted(models_dir, 1, 2, 3, 4, 5)
    assert [one.bundle_id for one in prune(models_dir, keep=2).pruned] == [ids[0]]
    assert prune(models_dir, keep=9).pruned == ()


def test_only_what_is_old_enough_goes(tmp_path: Path) -> None:
    first, second, *_ = promoted(tmp_path, 1, 2, 3, 4)
    replaced_at = datetime.fromisoformat(str(read_registry(tmp_path).standing_of(first).since))
    day = timedelta(days=30)
    for now, gone in (
        (replaced_at + day - timedelta(seconds=1), []),
        (replaced_at + day, []),
        (replaced_at + day + timedelta(microseconds=1), [first]),
        (datetime.now(timezone.utc) + day, [second, first]),
    ):
        planned = prune(tmp_path, older_than_days=30, now=now, dry_run=True)
        assert [one.bundle_id for one in planned.pruned] == gone
    assert len(list_bundle_ids(tmp_path)) == 4


@pytest.mark.parametrize("died_at", ["before the summary", "before the files", "among the files"])
def test_a_prune_that_died_is_finished_by_the_next(
    models_dir: Any, died_at: str, monkeypatch: Any
) -> None:
    first, *_ = promoted(models_dir, 1, 2, 3)
    with monkeypatch.context() as patch:
        kind = UrlStore if isinstance(models_dir, str) else FolderStore
        if died_at == "before the summary":
            patch.setattr(pruning, "_delete", _die)
        elif died_at == "before the files":
            patch.setattr(kind, "delete", _die)
        elif isinstance(models_dir, str):
            import fsspec

            system = type(fsspec.filesystem("memory"))
            whole = system.rm_file

            def rm_file(self: Any, path: str) -> None:
                if path.endswith("vocab.txt"):
                    _die()
                whole(self, path)

            patch.setattr(system, "rm_file", rm_file)
        else:
            patch.setattr(shutil, "rmtree", _die)
        with pytest.raises(StorageError):
            prune(models_dir)
    with pytest.raises(BundleNotFoundError):
        move(models_dir, first, CHAMPION, reason="test")
    done = prune(models_dir, keep=9)
    assert done.byte_count > 0
    assert first not in list_bundle_ids(models_dir)
    assert not [name for name in store_of(models_dir).sizes("bundles") if first in name]
    assert not [name for name in store_of(models_dir).files("bundles") if name.startswith(".d")]
    assert describe_model(models_dir, first)["training"]["run_id"] == "run1"
    assert len(read_registry(models_dir).transitions) == 4
    assert prune(models_dir, keep=9).byte_count == 0


def _die(*_: Any, **__: Any) -> None:
    raise StorageError("the disk is gone")


def test_a_model_packaged_anew_after_pruning_is_kept(models_dir: Any) -> None:
    first, *_ = promoted(models_dir, 1, 2, 3)
    prune(models_dir)
    assert fake_bundle(models_dir, 1, run_id="run1") == first
    assert prune(models_dir, keep=1).pruned == ()
    move(models_dir, first, CHAMPION, reason="back")
    assert prune(models_dir).kept_ids == list_bundle_ids(models_dir)
    assert read_registry(models_dir).champion_id == first


def test_what_is_promoted_while_pruning_stays(models_dir: Any, monkeypatch: Any) -> None:
    first, *_ = promoted(models_dir, 1, 2, 3)

    def late(place: Any, bundle_id: str, **options: Any) -> Any:
        move(place, bundle_id, SHADOW, reason="meanwhile")
        return note_pruned(place, bundle_id, **options)

    monkeypatch.setattr(pruning, "note_pruned", late)
    assert prune(models_dir).pruned == ()
    assert first in list_bundle_ids(models_dir)


def test_an_empty_place_has_nothing_to_prune(tmp_path: Path) -> None:
    assert prune(tmp_path / "none") == Pruning(pruned=(), byte_count=0, kept_ids=(), dry_run=False)
    assert not (tmp_path / "none").exists()
