"""The log's files: damaged, missing, unlisted, and those of earlier releases."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fake_bundles import fake_bundle

from churn_udf.errors import BundleIntegrityError
from churn_udf.models_location import FolderStore
from churn_udf.registry import CHAMPION, Registry, Transition, move, read_registry, roll_back
from churn_udf.registry_entries import EARLIER_ACTOR


def promote(models_dir: Path, bundle_id: str) -> Transition:
    return move(models_dir, bundle_id, CHAMPION, reason="test")


def test_a_damaged_entry_is_named(tmp_path: Path) -> None:
    promote(tmp_path, fake_bundle(tmp_path))
    path = tmp_path / "registry" / "00000001.json"
    original = path.read_text()
    for damaged, why in (
        (original.replace('"test"', '"tent"'), "does not fit its sha256"),
        ("", "JSONDecodeError"),
        ("[]", "TypeError"),
        ("{}", "KeyError"),
        (original.replace('"entry_version": 1', '"entry_version": 2'), "reads 1"),
    ):
        path.write_text(damaged)
        with pytest.raises(BundleIntegrityError, match=why) as caught:
            read_registry(tmp_path)
        assert str(path) in str(caught.value)
        assert "Restore it from a copy" in str(caught.value)
    path.write_text(original)
    assert read_registry(tmp_path).champion_id


def test_a_missing_entry_is_named(tmp_path: Path) -> None:
    for seed in range(3):
        promote(tmp_path, fake_bundle(tmp_path, seed))
    (tmp_path / "registry" / "00000002.json").unlink()
    with pytest.raises(BundleIntegrityError, match=r"00000002\.json is missing"):
        read_registry(tmp_path)
    with pytest.raises(BundleIntegrityError, match="is missing"):
        promote(tmp_path, fake_bundle(tmp_path, 9))


def test_a_list_that_lacks_an_entry_made_meanwhile_is_completed(
    tmp_path: Path, monkeypatch: Any
) -> None:
    ids = [fake_bundle(tmp_path, seed) for seed in range(3)]
    for bundle_id in ids:
        promote(tmp_path, bundle_id)
    whole = FolderStore.files
    unlisted: set[str] = set()

    def partly(store: FolderStore, folder: str) -> dict[str, Any]:
        found = whole(store, folder)
        return {name: stamp for name, stamp in found.items() if name not in unlisted}

    monkeypatch.setattr(FolderStore, "files", partly)
    for name in ("00000001.json", "00000002.json"):
        unlisted.add(name)
        assert read_registry(tmp_path).champions == tuple(ids)


def test_other_files_in_the_registry_do_not_count(tmp_path: Path) -> None:
    bundle_id = fake_bundle(tmp_path)
    promote(tmp_path, bundle_id)
    for name in (".writing-00ff", "notes.txt", "1.json", "00000002.json.bak", ".create.lock"):
        (tmp_path / "registry" / name).write_text("x")
    assert read_registry(tmp_path).champion_id == bundle_id


def earlier_release(models_dir: Path, *promoted: str, pointer: str | None = None) -> None:
    """Write what an earlier release did."""
    lines = [
        {"bundle_id": name, "promoted_at": f"2025-01-{day:02d}T00:00:00+00:00", "reason": "gate"}
        for day, name in enumerate(promoted, start=1)
    ]
    models_dir.mkdir(parents=True, exist_ok=True)
    log = "".join(json.dumps(line) + "\n" for line in lines)
    (models_dir / "promotions.jsonl").write_text(log)
    last = lines[-1] if pointer is None else {**lines[-1], "bundle_id": pointer}
    (models_dir / "champion.json").write_text(json.dumps(last))


def test_promotions_of_an_earlier_release_begin_the_log(tmp_path: Path) -> None:
    first, second, third = (fake_bundle(tmp_path, seed) for seed in range(3))
    earlier_release(tmp_path, first, second, first)
    registry = read_registry(tmp_path)
    assert [entry.bundle_id for entry in registry.transitions] == [first, second, first]
    assert {entry.moved_by for entry in registry.transitions} == {EARLIER_ACTOR}
    assert (registry.champion_id, registry.previous_champion_id) == (first, second)
    assert promote(tmp_path, third).sequence == 4
    assert roll_back(tmp_path, reason="test").bundle_id == first
    assert [entry.sequence for entry in read_registry(tmp_path).transitions] == [1, 2, 3, 4, 5]


def test_a_log_cut_short_by_a_crash_ends_with_the_pointer(tmp_path: Path) -> None:
    first, second = fake_bundle(tmp_path, 1), fake_bundle(tmp_path, 2)
    earlier_release(tmp_path, first, pointer=second)
    with (tmp_path / "promotions.jsonl").open("a") as stream:
        stream.write('{"bundle_id": "')
    registry = read_registry(tmp_path)
    assert [entry.bundle_id for entry in registry.transitions] == [first, second]
    assert registry.champion_id == second


def test_promotions_without_a_pointer_do_not_count(tmp_path: Path) -> None:
    earlier_release(tmp_path, fake_bundle(tmp_path))
    (tmp_path / "champion.json").unlink()
    assert read_registry(tmp_path) == Registry()


def test_a_damaged_pointer_of_an_earlier_release_is_named(tmp_path: Path) -> None:
    earlier_release(tmp_path, fake_bundle(tmp_path))
    (tmp_path / "champion.json").write_text("{")
    with pytest.raises(BundleIntegrityError, match=r"champion\.json is not a champion pointer"):
        read_registry(tmp_path)


def test_a_lost_beginning_of_the_log_is_named(tmp_path: Path) -> None:
    earlier_release(tmp_path, fake_bundle(tmp_path))
    promote(tmp_path, fake_bundle(tmp_path, 1))
    (tmp_path / "promotions.jsonl").unlink()
    (tmp_path / "champion.json").unlink()
    with pytest.raises(BundleIntegrityError, match="first entry in registry/ is number 2"):
        read_registry(tmp_path)
