"""The search: samplers, pruning, failures, results."""

from __future__ import annotations

import csv
import dataclasses
import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from training_example import tiny_config
from tune_example import NUM_LOOKS, SPACE, UNPRUNED, FakeFit, facts, loss_of, run, use_fake

from trainer.config import load_config
from trainer.data.snapshot import Snapshot
from trainer.errors import ConfigError, RunError, TrainingDivergedError
from trainer.progress import Progress
from trainer.tune import search
from trainer.tune.config import TuneConfig
from trainer.tune.search import kept_loss
from trainer.tune.space import Dimension, settings_of


@pytest.mark.parametrize("sampler", ["tpe", "random", "grid"])
def test_sampler_searches_and_repeats_itself(
    sampler: str, snapshot: Snapshot, fake: FakeFit, tmp_path: Path
) -> None:
    settings = TuneConfig(num_trials=12, pruner="none", sampler=sampler)
    first = run(snapshot, tmp_path / "a", settings)
    assert [row.number for row in first.trials] == list(range(12))
    assert {row.state for row in first.trials} == {"complete"}
    assert len({str(row.params) for row in first.trials}) == 12
    for row in first.trials:
        assert row.value == pytest.approx(loss_of(settings_of(tiny_config().fit, row.params)))
        assert row.looks == NUM_LOOKS
    assert first.best.value == min(row.value for row in first.trials)
    assert facts(run(snapshot, tmp_path / "b", settings)) == facts(first)
    few = dataclasses.replace(settings, num_trials=2)
    other = run(snapshot, tmp_path / "c", few, config=tiny_config(fit__seed=5))
    assert [row.params for row in other.trials] != [row.params for row in first.trials[:2]]


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


def test_present_settings_outside_the_space_are_told(
    snapshot: Snapshot, fake: FakeFit, tmp_path: Path
) -> None:
    stream = io.StringIO()
    config, settings = tiny_config(fit__dropout=0.6), dataclasses.replace(UNPRUNED, num_trials=1)
    outcome = run(snapshot, tmp_path, settings, config=config, progress=Progress(stream))
    assert "no trial has the present settings: fit.dropout outside" in stream.getvalue()
    assert outcome.best.params["fit.dropout"] <= 0.5


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
