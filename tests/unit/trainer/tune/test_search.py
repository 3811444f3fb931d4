"""The search: samplers, pruning, budgets, resuming, and blindness to the test split."""

from __future__ import annotations

import csv
import dataclasses
import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import tune_example
from training_example import tiny_config
from tune_example import NUM_LOOKS, SPACE, FakeFit, loss_of

from trainer.config import load_config
from trainer.data.snapshot import Snapshot
from trainer.data.splits import make_splits
from trainer.data.synthetic import synthetic_snapshot
from trainer.errors import ConfigError, RunError, TrainingDivergedError
from trainer.progress import Progress
from trainer.tune import search
from trainer.tune.config import TuneConfig
from trainer.tune.results import TuneOutcome
from trainer.tune.search import kept_loss, tune, without_test
from trainer.tune.space import Dimension, settings_of

UNPRUNED = TuneConfig(num_trials=8, pruner="none", sampler="random")


class Killed(BaseException):
    """Stands for a process that dies."""


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    return synthetic_snapshot(tmp_path_factory.mktemp("snapshots"), num_users=60, seed=1)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeFit:
    return use_fake(monkeypatch)


def use_fake(monkeypatch: pytest.MonkeyPatch, before: Any = None) -> FakeFit:
    made = FakeFit(before)
    monkeypatch.setattr("trainer.fit.loop.fit_model", made)
    return made


def run(snapshot: Snapshot, folder: Path, settings: TuneConfig, **changes: Any) -> TuneOutcome:
    options = {"space": SPACE, "progress": Progress(io.StringIO()), **changes}
    return tune(snapshot, options.pop("config", tiny_config()), settings, folder, **options)


def facts(outcome: TuneOutcome) -> list[tuple[Any, ...]]:
    return [(row.number, row.state, row.value, row.params) for row in outcome.trials]


@pytest.mark.parametrize("sampler", ["tpe", "random", "grid"])
def test_sampler_searches_and_repeats_itself(
    sampler: str, snapshot: Snapshot, fake: FakeFit, tmp_path: Path
) -> None:
    settings = TuneConfig(num_trials=14, pruner="none", sampler=sampler)
    first = run(snapshot, tmp_path / "a", settings)
    assert [row.number for row in first.trials] == list(range(14))
    assert {row.state for row in first.trials} == {"complete"}
    assert len({str(row.params) for row in first.trials}) == 14
    for row in first.trials:
        assert row.value == pytest.approx(loss_of(settings_of(tiny_config().fit, row.params)))
        assert row.looks == NUM_LOOKS
    assert first.best.value == min(row.value for row in first.trials)
    assert facts(run(snapshot, tmp_path / "b", settings)) == facts(first)
    other = run(snapshot, tmp_path / "c", settings, config=tiny_config(fit__seed=5))
    assert [row.params for row in other.trials] != [row.params for row in first.trials]


def test_tpe_learns_from_its_trials(snapshot: Snapshot, fake: FakeFit, tmp_path: Path) -> None:
    settings = TuneConfig(num_trials=40, pruner="none")
    excess = [row.value - 0.4 for row in run(snapshot, tmp_path, settings).trials]
    assert np.mean(excess[30:]) < 0.2, "drawn at random, the mean is 0.4"


def test_search_starts_from_the_present_settings(
    snapshot: Snapshot, fake: FakeFit, tmp_path: Path
) -> None:
    config = tiny_config(fit__learning_rate=2e-3, fit__dropout=0.3)
    first = run(snapshot, tmp_path, UNPRUNED, config=config).trials[0]
    assert first.params == {**{"fit.learning_rate": 2e-3, "fit.dropout": 0.3, "fit.num_bins": 12}}


def test_grid_takes_every_point_once_and_ends(
    snapshot: Snapshot, fake: FakeFit, tmp_path: Path
) -> None:
    settings = TuneConfig(num_trials=100, pruner="none", sampler="grid")
    outcome = run(snapshot, tmp_path, settings)
    found = [tuple(row.params.values()) for row in outcome.trials]
    rates, shares = (1e-4, 1e-3, 1e-2), (0.0, 0.25, 0.5)
    every = {(rate, share, bins) for rate in rates for share in shares for bins in (8, 12)}
    assert {(round(rate, 9), *rest) for rate, *rest in found} == every
    assert len(found) == 18


@pytest.mark.parametrize("pruner", ["median", "halving"])
def test_pruner_ends_hopeless_trials_early(
    pruner: str, snapshot: Snapshot, fake: FakeFit, tmp_path: Path
) -> None:
    settings = TuneConfig(num_trials=20, pruner=pruner, sampler="random")
    rows = run(snapshot, tmp_path, settings).trials
    pruned = [row for row in rows if row.state == "pruned"]
    complete = [row for row in rows if row.state == "complete"]
    assert len(pruned) >= 4
    assert all(row.looks < NUM_LOOKS for row in pruned)
    assert all(row.looks == NUM_LOOKS for row in complete)
    assert fake.num_rows == sum(1 + row.looks for row in rows)
    assert np.median([row.value for row in pruned]) > np.median([row.value for row in complete])
    folder = tmp_path / search.study_id_of(snapshot.snapshot_id, tiny_config(), settings, SPACE)
    assert not list(folder.glob("trials/*/*/model"))


def test_same_command_goes_on_and_repeats_nothing(
    snapshot: Snapshot, fake: FakeFit, tmp_path: Path
) -> None:
    whole = run(snapshot, tmp_path / "whole", UNPRUNED)
    fake.fits.clear()
    run(snapshot, tmp_path / "parts", dataclasses.replace(UNPRUNED, num_trials=3))
    assert len(fake.fits) == 3
    parts = run(snapshot, tmp_path / "parts", UNPRUNED)
    assert len(fake.fits) == 8
    assert facts(parts) == facts(whole)
    run(snapshot, tmp_path / "parts", UNPRUNED)
    assert len(fake.fits) == 8


@pytest.mark.parametrize("error", [Killed, KeyboardInterrupt])
@pytest.mark.parametrize("sampler", ["tpe", "grid"])
def test_killed_search_ends_like_an_undisturbed_one(
    error: type[BaseException],
    sampler: str,
    snapshot: Snapshot,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = TuneConfig(num_trials=13, pruner="none", sampler=sampler)

    def die(number: int) -> None:
        if number == 5:
            raise error

    use_fake(monkeypatch)
    whole = run(snapshot, tmp_path / "whole", settings)
    cut = use_fake(monkeypatch, die)
    with pytest.raises(error):
        run(snapshot, tmp_path / "cut", settings)
    assert facts(run(snapshot, tmp_path / "cut", settings)) == facts(whole)
    assert len(cut.fits) == 14, "the trial under way is run again, no other one"


def test_trial_that_kills_its_process_again_and_again_is_given_up(
    snapshot: Snapshot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(number: int) -> None:
        if number in (2, 3, 4):
            raise Killed

    use_fake(monkeypatch, die)
    for _ in range(3):
        with pytest.raises(Killed):
            run(snapshot, tmp_path, UNPRUNED)
    states = [row.state for row in run(snapshot, tmp_path, UNPRUNED).trials]
    assert states == ["complete", "failed", *["complete"] * 6]


def test_time_budget_keeps_the_trial_under_way(
    snapshot: Snapshot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = use_fake(monkeypatch, lambda number: clock.advance(25.0))
    clock = Clock(monkeypatch)
    settings = dataclasses.replace(UNPRUNED, max_minutes=1.0)
    outcome = run(snapshot, tmp_path, settings)
    assert [row.state for row in outcome.trials] == ["complete", "complete", "waiting"]
    assert len(fake.fits) == 3
    again = run(snapshot, tmp_path, settings)
    assert [row.state for row in again.trials[:3]] == ["complete"] * 3
    assert again.trials[2].params == outcome.trials[2].params


def test_no_trial_in_time_is_a_clear_error(
    snapshot: Snapshot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    use_fake(monkeypatch, lambda number: clock.advance(100.0))
    with pytest.raises(RunError, match=r"none is complete.*--max-minutes"):
        run(snapshot, tmp_path, dataclasses.replace(UNPRUNED, max_minutes=1.0))


class Clock:
    """A clock that only moves when told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(search.time, "monotonic", lambda: self.now)

    def advance(self, seconds: float) -> None:
        self.now += seconds


def test_failed_trial_is_recorded_and_the_search_goes_on(
    snapshot: Snapshot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverge(number: int) -> None:
        if number == 2:
            raise TrainingDivergedError("the loss is nan")

    use_fake(monkeypatch, diverge)
    outcome = run(snapshot, tmp_path, UNPRUNED)
    assert [row.state for row in outcome.trials][:3] == ["complete", "failed", "complete"]
    assert outcome.trials[1].error == "the loss is nan"
    with (outcome.folder / "trials.csv").open(newline="") as stream:
        table = list(csv.DictReader(stream))
    assert [line["state"] for line in table] == [row.state for row in outcome.trials]
    assert table[1]["error"] == "the loss is nan"
    assert float(table[0]["value"]) == outcome.trials[0].value
    assert float(table[3]["fit.learning_rate"]) == outcome.trials[3].params["fit.learning_rate"]


def test_search_in_which_all_fails_says_why(
    snapshot: Snapshot, tmp_path: Path, fake: FakeFit
) -> None:
    space = (Dimension(name="fit.num_heads", choices=(3,)),)  # does not divide the width of 16
    with pytest.raises(RunError, match=r"the last one failed: fit\.hidden_size"):
        run(snapshot, tmp_path, UNPRUNED, space=space)


def test_error_of_ours_ends_the_search(
    snapshot: Snapshot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_down(number: int) -> None:
        raise ZeroDivisionError("a bug")

    use_fake(monkeypatch, break_down)
    with pytest.raises(ZeroDivisionError):
        run(snapshot, tmp_path, UNPRUNED)


def test_seeds_are_averaged(snapshot: Snapshot, fake: FakeFit, tmp_path: Path) -> None:
    outcome = run(snapshot, tmp_path, dataclasses.replace(UNPRUNED, num_trials=1, num_seeds=3))
    assert [fit.seed for fit in fake.fits] == [0, 1, 2]
    assert outcome.best.value == pytest.approx(loss_of(fake.fits[0]))
    assert load_config(outcome.config_file).fit.seed == 0


def test_seed_that_is_done_is_not_trained_again(
    snapshot: Snapshot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(number: int) -> None:
        if number == 2:
            raise Killed

    fake = use_fake(monkeypatch, die)
    settings = dataclasses.replace(UNPRUNED, num_trials=1, num_seeds=2)
    with pytest.raises(Killed):
        run(snapshot, tmp_path, settings)
    run(snapshot, tmp_path, settings)
    assert [fit.seed for fit in fake.fits] == [0, 1, 1]


def test_best_settings_are_a_config_file(snapshot: Snapshot, fake: FakeFit, tmp_path: Path) -> None:
    config = tiny_config(gate__min_auroc=0.6, fit__seed=4, fit__learning_rate=9e-3)
    outcome = run(snapshot, tmp_path, UNPRUNED, config=config)
    best = settings_of(config.fit, outcome.best.params)
    assert best != config.fit
    assert load_config(outcome.config_file) == dataclasses.replace(config, fit=best)


def test_budgets_belong_to_no_study_but_all_else_does(snapshot: Snapshot) -> None:
    def identity(settings: TuneConfig = UNPRUNED, space: Any = SPACE, **changes: Any) -> str:
        return search.study_id_of(snapshot.snapshot_id, tiny_config(**changes), settings, space)

    plain = identity()
    budgets = dataclasses.replace(UNPRUNED, num_trials=99, max_minutes=3.0)
    assert identity(budgets, evaluate__num_bootstrap=7, tracking__project="x") == plain
    others = [
        identity(fit__seed=1),
        identity(splits__valid_cutoffs=1),
        identity(space=SPACE[:2]),
        *(
            identity(dataclasses.replace(UNPRUNED, **{name: value}))
            for name, value in (("sampler", "tpe"), ("pruner", "median"), ("num_seeds", 2))
        ),
    ]
    assert len({plain, *others}) == 7


def test_half_written_journal_line_is_dropped(
    snapshot: Snapshot, fake: FakeFit, tmp_path: Path
) -> None:
    first = run(snapshot, tmp_path, dataclasses.replace(UNPRUNED, num_trials=3))
    with (first.folder / "journal.log").open("a") as stream:
        stream.write('{"op_code":8,"worker')
    again = run(snapshot, tmp_path, dataclasses.replace(UNPRUNED, num_trials=5))
    assert [row.state for row in again.trials] == ["complete"] * 5
    assert facts(again)[:3] == facts(first)


def start(snapshot: Snapshot, folder: Path, *arguments: object) -> subprocess.Popen[bytes]:
    """Search in a process of its own."""
    root = Path(tune_example.__file__).parent
    paths = [str(root), str(root.parent), os.environ.get("PYTHONPATH", "")]
    return subprocess.Popen(
        [sys.executable, str(root / "tune_example.py"), str(snapshot.path), str(folder)]
        + [str(item) for item in arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )


def test_processes_share_a_study_and_one_may_die(
    snapshot: Snapshot, fake: FakeFit, tmp_path: Path
) -> None:
    whole = run(snapshot, tmp_path / "whole", dataclasses.replace(UNPRUNED, num_trials=24))
    shared = tmp_path / "shared"
    workers = [start(snapshot, shared, 24), start(snapshot, shared, 24, 3)]
    codes = [worker.wait(timeout=60) for worker in workers]
    fake.fits.clear()
    outcome = run(snapshot, shared, dataclasses.replace(UNPRUNED, num_trials=24))
    assert codes == [0, 9]
    assert len(fake.fits) <= 1, "at most the trial of the dead process was left"
    assert facts(outcome) == facts(whole)


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


def test_loss_of_a_training_is_its_best_look_at_the_end() -> None:
    rows = [
        {"stage": "numeric", "epoch": 1.0, "valid_loss": 0.1},
        {"stage": "fine-tune", "epoch": 0.5, "valid_loss": 0.4},
        {"stage": "fine-tune", "epoch": 1.0, "valid_loss": 0.5},
        {"stage": "fine-tune", "epoch": 1.0, "train_loss": 0.2},
    ]
    assert kept_loss(rows) == 0.4
    with pytest.raises(RunError, match="never looked"):
        kept_loss(rows[:1])


def test_missing_optuna_names_the_extra(
    snapshot: Snapshot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ConfigError, match=r"pip install 'warehouse-churn\[tune\]'"):
        run(snapshot, tmp_path, UNPRUNED)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sampler": "cma"}, "allowed: tpe, random, grid"),
        ({"pruner": "hope"}, "allowed: median, halving, none"),
        ({"num_trials": 0}, "num_trials is 0"),
        ({"num_seeds": 0}, "num_seeds is 0"),
        ({"max_minutes": 0.0}, "max_minutes is 0.0"),
    ],
)
def test_bad_settings_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(UNPRUNED, **change)
