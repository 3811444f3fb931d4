"""The registry: an append-only log whose fold says which model is in which stage."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fake_bundles import fake_bundle

from churn_udf import registry as registry_module
from churn_udf.bundle_store import open_champion
from churn_udf.contracts.bundle import MANIFEST_FILE
from churn_udf.errors import (
    BundleIntegrityError,
    BundleNotFoundError,
    ChampionChangedError,
    ChurnError,
    StageError,
)
from churn_udf.models_location import store_of
from churn_udf.registry import (
    CANDIDATE,
    CHAMPION,
    RETIRED,
    SHADOW,
    Registry,
    Transition,
    move,
    note_pruned,
    read_registry,
    roll_back,
)
from churn_udf.registry_entries import create_entry


@pytest.fixture(params=["folder", "memory"])
def models_dir(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: Any) -> Iterator[Any]:
    """A location of each kind."""
    if request.param == "folder":
        yield tmp_path / "models"
        return
    import fsspec

    monkeypatch.setenv("CHURN_CACHE_DIR", str(tmp_path / "cache"))
    yield "memory://registry-test/models"
    memory = fsspec.filesystem("memory")
    if memory.exists("/registry-test"):
        memory.rm("/registry-test", recursive=True)


def promote(models_dir: Any, bundle_id: str, **options: Any) -> Transition:
    return move(models_dir, bundle_id, CHAMPION, reason="test", **options)


def stages(models_dir: Any, *bundle_ids: str) -> list[str]:
    registry = read_registry(models_dir)
    return [registry.stage_of(bundle_id) for bundle_id in bundle_ids]


def test_nothing_there_is_an_empty_registry(models_dir: Any) -> None:
    registry = read_registry(models_dir)
    assert registry == Registry()
    assert (registry.champion_id, registry.previous_champion_id) == (None, None)
    assert registry.stage_of("0" * 16) == CANDIDATE


def test_a_promotion_retires_the_champion_before(models_dir: Any) -> None:
    first, second = fake_bundle(models_dir, 1), fake_bundle(models_dir, 2)
    promote(models_dir, first)
    entry = promote(models_dir, second)
    assert stages(models_dir, first, second) == [RETIRED, CHAMPION]
    assert (entry.sequence, entry.from_stage) == (2, CANDIDATE)
    registry = read_registry(models_dir)
    assert registry.standing_of(first).reason == f"replaced by {second}"
    assert registry.standing_of(first).since == entry.moved_at
    assert registry.kept_ids == {first, second}


def test_every_fact_of_a_move_is_logged(models_dir: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("CHURN_ACTOR", "Ada")
    bundle_id = fake_bundle(models_dir)
    checks = [{"name": "auroc", "value": 0.5, "is_passed": False}]
    promote(models_dir, bundle_id, is_override=True, checks=checks)
    (entry,) = read_registry(models_dir).transitions
    assert (entry.moved_by, entry.reason, entry.is_override) == ("Ada", "test", True)
    assert entry.checks == tuple(checks)
    assert datetime.fromisoformat(entry.moved_at).utcoffset() == timedelta(0)


def test_moving_to_the_stage_it_is_in_changes_nothing(models_dir: Any) -> None:
    bundle_id = fake_bundle(models_dir)
    entry = promote(models_dir, bundle_id)
    assert promote(models_dir, bundle_id, checks=[{"name": "x"}]) == entry
    assert len(read_registry(models_dir).transitions) == 1
    with pytest.raises(StageError, match="is a candidate already"):
        move(models_dir, fake_bundle(models_dir, 2), CANDIDATE, reason="test")


def test_a_dry_run_checks_everything_and_logs_nothing(models_dir: Any) -> None:
    bundle_id = fake_bundle(models_dir)
    entry = promote(models_dir, bundle_id, is_dry_run=True)
    assert (entry.sequence, entry.to_stage) == (1, CHAMPION)
    assert read_registry(models_dir) == Registry()
    with pytest.raises(BundleNotFoundError):
        promote(models_dir, "0" * 16, is_dry_run=True)


def test_rolling_back_goes_back_step_by_step(models_dir: Any) -> None:
    first, second, third = (fake_bundle(models_dir, seed) for seed in (1, 2, 3))
    for bundle_id in (first, second, third):
        promote(models_dir, bundle_id)
    entry = roll_back(models_dir, reason="worse")
    assert (entry.bundle_id, entry.from_stage, entry.action) == (second, RETIRED, "rollback")
    assert stages(models_dir, first, second, third) == [RETIRED, CHAMPION, RETIRED]
    assert roll_back(models_dir, reason="worse still").bundle_id == first
    with pytest.raises(StageError, match=rf"no champion before {first}.*models promote"):
        roll_back(models_dir, reason="too far")
    promote(models_dir, third)
    assert roll_back(models_dir, reason="again").bundle_id == first


def test_rolling_back_to_a_damaged_bundle_moves_nothing(tmp_path: Path) -> None:
    first, second = fake_bundle(tmp_path, 1), fake_bundle(tmp_path, 2)
    promote(tmp_path, first)
    promote(tmp_path, second)
    (tmp_path / "bundles" / first / "model.json").write_text("{ }")
    with pytest.raises(BundleIntegrityError, match="sha256"):
        roll_back(tmp_path, reason="test")
    assert read_registry(tmp_path).champion_id == second


def test_two_rollbacks_decided_on_the_same_champion_go_back_once(models_dir: Any) -> None:
    ids = [fake_bundle(models_dir, seed) for seed in (1, 2, 3)]
    for bundle_id in ids:
        promote(models_dir, bundle_id)
    roll_back(models_dir, reason="mine", expected_champion=ids[2])
    with pytest.raises(ChampionChangedError, match="somebody moved a model"):
        roll_back(models_dir, reason="yours", expected_champion=ids[2])
    assert read_registry(models_dir).champion_id == ids[1]


@pytest.mark.parametrize("stage", [CANDIDATE, SHADOW, RETIRED])
def test_the_champion_cannot_leave_without_a_successor(models_dir: Any, stage: str) -> None:
    bundle_id = fake_bundle(models_dir)
    promote(models_dir, bundle_id)
    with pytest.raises(StageError, match="somebody has to score"):
        move(models_dir, bundle_id, stage, reason="test")
    assert stages(models_dir, bundle_id) == [CHAMPION]


def test_shadows_come_and_go_without_touching_the_champion(models_dir: Any) -> None:
    champion, *others = (fake_bundle(models_dir, seed) for seed in range(4))
    promote(models_dir, champion)
    for bundle_id in others:
        move(models_dir, bundle_id, SHADOW, reason="test")
    registry = read_registry(models_dir)
    assert registry.shadow_ids == tuple(sorted(others))
    assert registry.kept_ids == {champion, *others}
    move(models_dir, others[0], RETIRED, reason="test")
    promote(models_dir, others[1])
    registry = read_registry(models_dir)
    assert registry.shadow_ids == (others[2],)
    assert registry.kept_ids == {champion, others[1], others[2]}


def test_stages_are_named_when_one_is_unknown(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"'live'.*candidate.*shadow.*champion.*retired"):
        move(tmp_path, "0" * 16, "live", reason="test")


@pytest.mark.parametrize("stage", [CHAMPION, SHADOW, RETIRED])
def test_what_is_not_there_is_not_moved(models_dir: Any, stage: str) -> None:
    fake_bundle(models_dir)
    with pytest.raises(BundleNotFoundError):
        move(models_dir, "0" * 16, stage, reason="test")
    assert read_registry(models_dir) == Registry()


@pytest.mark.parametrize("expected", [None, "f" * 16])
def test_a_decision_against_another_champion_is_refused(
    models_dir: Any, expected: str | None
) -> None:
    first, second = fake_bundle(models_dir, 1), fake_bundle(models_dir, 2)
    promote(models_dir, first, expected_champion=None)
    with pytest.raises(ChampionChangedError, match=rf"now it is {first}.*models list"):
        promote(models_dir, second, expected_champion=expected)
    promote(models_dir, second, expected_champion=first)
    assert read_registry(models_dir).champion_id == second


def test_a_pruned_bundle_is_refused_until_it_is_packaged_anew(
    models_dir: Any, monkeypatch: Any
) -> None:
    bundle_id = fake_bundle(models_dir)
    entry = note_pruned(models_dir, bundle_id, reason="old")
    assert note_pruned(models_dir, bundle_id, reason="old, too") == entry
    assert set(read_registry(models_dir).pruned_at) == {bundle_id}
    for stage in (CHAMPION, SHADOW, CANDIDATE):
        with pytest.raises(BundleNotFoundError, match=r"was pruned at .*churn-train package"):
            move(models_dir, bundle_id, stage, reason="test")
    store_of(models_dir).delete(f"bundles/{bundle_id}", last=MANIFEST_FILE)
    with pytest.raises(BundleNotFoundError):
        promote(models_dir, bundle_id)
    assert fake_bundle(models_dir) == bundle_id
    promote(models_dir, bundle_id)
    assert read_registry(models_dir).champion_id == bundle_id
    assert not read_registry(models_dir).pruned_at


def test_what_scores_or_a_rollback_needs_is_not_pruned(models_dir: Any) -> None:
    first, second, shadow, third = (fake_bundle(models_dir, seed) for seed in range(4))
    promote(models_dir, first)
    promote(models_dir, second)
    move(models_dir, shadow, SHADOW, reason="test")
    for bundle_id in (first, second, shadow):
        with pytest.raises(StageError, match=r"it is kept.*models retire"):
            note_pruned(models_dir, bundle_id, reason="test")
    promote(models_dir, third)
    note_pruned(models_dir, first, reason="test")
    registry = read_registry(models_dir)
    assert (registry.champion_id, registry.previous_champion_id) == (third, second)
    roll_back(models_dir, reason="test")
    with pytest.raises(StageError, match="nothing to roll back to"):
        roll_back(models_dir, reason="test")


def test_a_number_is_given_once(models_dir: Any) -> None:
    bundle_id = fake_bundle(models_dir)
    entry = promote(models_dir, bundle_id, is_dry_run=True)
    assert create_entry(models_dir, entry)
    assert not create_entry(models_dir, entry)
    assert read_registry(models_dir).transitions == (entry,)


def test_who_was_second_decides_anew(models_dir: Any, monkeypatch: Any) -> None:
    """Somebody else's entry lands between reading and writing."""
    mine, yours = fake_bundle(models_dir, 1), fake_bundle(models_dir, 2)
    is_first = [True]

    def create_late(*arguments: Any) -> bool:
        if is_first.pop() if is_first else False:
            monkeypatch.setattr(registry_module, "create_entry", create_entry)
            promote(models_dir, yours)
        return create_entry(*arguments)

    monkeypatch.setattr(registry_module, "create_entry", create_late)
    entry = promote(models_dir, mine)
    assert entry.sequence == 2
    assert read_registry(models_dir).champions == (yours, mine)


def _move_many(models_dir: Any, ids: list[str], worker: int, moves: int) -> list[tuple[int, str]]:
    """Promote, shadow, roll back and retire in turn; return what was logged."""
    done = []
    for step in range(moves):
        bundle_id = ids[(worker + step) % len(ids)]
        try:
            if step % 4 == 3:
                entry = roll_back(models_dir, reason=f"worker {worker} step {step}")
            else:
                stage = (CHAMPION, SHADOW, CHAMPION)[step % 4]
                entry = move(models_dir, bundle_id, stage, reason=f"worker {worker} step {step}")
        except StageError:
            continue
        if entry.reason == f"worker {worker} step {step}":
            done.append((entry.sequence, entry.reason))
    return done


def check_log(models_dir: Any, done: list[list[tuple[int, str]]]) -> None:
    """Nothing is lost or doubled, and one champion stands after every entry."""
    registry = read_registry(models_dir)
    logged = [(entry.sequence, entry.reason) for entry in registry.transitions]
    assert [sequence for sequence, _ in logged] == list(range(1, len(logged) + 1))
    assert sorted(entry for each in done for entry in each) == logged
    for length in range(1, len(logged) + 1):
        state = registry_module.fold(registry.transitions[:length])
        champions = [name for name, one in state.standings.items() if one.stage == CHAMPION]
        assert champions == ([state.champion_id] if state.champion_id else [])
    assert len([one for one in registry.standings.values() if one.stage == CHAMPION]) == 1


def test_processes_that_move_at_once_lose_nothing(tmp_path: Path) -> None:
    ids = [fake_bundle(tmp_path, seed) for seed in range(5)]
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        done = pool.starmap(_move_many, [(tmp_path, ids, worker, 10) for worker in range(4)])
    assert sum(map(len, done)) >= 10
    check_log(tmp_path, done)
    assert open_champion(tmp_path).bundle_id == read_registry(tmp_path).champion_id
    assert not list((tmp_path / "registry").glob(".writing-*"))


def test_threads_that_move_at_once_lose_nothing(models_dir: Any) -> None:
    ids = [fake_bundle(models_dir, seed) for seed in range(5)]
    done: list[list[tuple[int, str]]] = []
    failures: list[BaseException] = []

    def work(worker: int) -> None:
        try:
            done.append(_move_many(models_dir, ids, worker, 6))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    check_log(models_dir, done)


def test_of_many_that_promote_against_the_same_champion_one_wins(tmp_path: Path) -> None:
    first, *ids = (fake_bundle(tmp_path, seed) for seed in range(6))
    promote(tmp_path, first)
    won: list[str] = []
    lost: list[ChurnError] = []

    def work(bundle_id: str) -> None:
        try:
            won.append(promote(tmp_path, bundle_id, expected_champion=first).bundle_id)
        except ChampionChangedError as error:
            lost.append(error)

    threads = [threading.Thread(target=work, args=(bundle_id,)) for bundle_id in ids]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(won), len(lost)) == (1, 4)
    assert read_registry(tmp_path).champions == (first, won[0])
