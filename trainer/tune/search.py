"""Searching: trials are trainings judged by their own looks at validation rows."""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from churn_udf.errors import ChurnError
from trainer.config import TrainConfig, to_mapping
from trainer.data.snapshot import Snapshot
from trainer.data.splits import Splits, make_splits
from trainer.errors import RunError
from trainer.fit.config import FINE_TUNE, FitConfig
from trainer.progress import Progress, Step
from trainer.runs import FIT_SECTIONS, code_version, read_json, short_hash, to_json, write_text
from trainer.tune.config import TuneConfig
from trainer.tune.results import TuneOutcome, best_row, make_outcome, write_results
from trainer.tune.space import (
    Space,
    default_space,
    grid_points,
    names_outside,
    present_values,
    settings_of,
)
from trainer.tune.study import Ask, Study

RESULT_FILE = "result.json"
LogRow = Callable[[Mapping[str, Any]], None]


class _GivenUp(Exception):
    """The pruner sees no hope for a trial."""


class _OutOfTime(Exception):
    """The time budget is spent."""


def tune(
    snapshot: Snapshot,
    config: TrainConfig,
    settings: TuneConfig,
    studies_dir: Path,
    *,
    space: Space | None = None,
    progress: Progress,
) -> TuneOutcome:
    """Search for better training settings, or go on with the search of the same inputs.

    The test split is cut away before anything is trained. The seed decides the whole search as
    long as one process runs it.

    Args:
        snapshot: The rows.
        config: Settings; the space replaces some of ``fit``.
        settings: How to search and for how long.
        studies_dir: Folder of all studies.
        space: What to search; None takes the default of the encoder.
        progress: Shows the search.

    Returns:
        Every trial, and where the best settings are.

    Raises:
        ConfigError: Optuna is missing, or the grid is too large.
        RunError: No trial has been finished.
        SplitError: The history is too short.
    """
    deadline = None if settings.max_minutes is None else settings.max_minutes * 60.0
    started_at = time.monotonic()
    chosen = space or default_space(config.fit)
    splits = make_splits(snapshot, config.splits, seed=config.fit.seed)
    study_id = study_id_of(snapshot.snapshot_id, config, settings, chosen)
    fixed, num_trials = _fixed_trials(chosen, config.fit, settings, progress)
    study = Study(
        studies_dir / study_id,
        space=chosen,
        sampler=settings.sampler,
        pruner=settings.pruner,
        seed=config.fit.seed,
        fixed=fixed,
    )
    search = _Search(
        *without_test(snapshot, splits),
        config=config,
        num_seeds=settings.num_seeds,
        study=study,
        stops_at=None if deadline is None else started_at + deadline,
    )
    with study.working(), progress.step("tune", total=num_trials, unit="trials") as step:
        step.count = sum(row.state not in ("running", "waiting") for row in study.rows())
        search.run(num_trials, step)
    with study.locked():
        write_results(study.folder, config, study.rows())
    return make_outcome(study_id, study.folder, study.rows())


def study_id_of(snapshot_id: str, config: TrainConfig, settings: TuneConfig, space: Space) -> str:
    """Return the id of a study: a hash of all that decides its trials, the budgets left out."""
    tree = to_mapping(config)
    return short_hash(
        {
            "snapshot_id": snapshot_id,
            "code": code_version(),
            **{name: tree[name] for name in FIT_SECTIONS},
            "space": [dataclasses.asdict(dimension) for dimension in space],
            "search": [settings.sampler, settings.pruner, settings.num_seeds],
        }
    )


def without_test(snapshot: Snapshot, splits: Splits) -> tuple[Snapshot, Splits]:
    """Return both without the test split: rows from its first cutoff on do not exist any more.

    Rows are ordered by cutoff, and all that trains or validates lies before the test, so the
    row numbers stay the same.
    """
    first_test = np.datetime64(splits.plan.test[0], "D")
    num_rows = int(np.searchsorted(snapshot.cutoff_dates, first_test, side="left"))
    facts = {**splits.facts, "splits": dict(splits.facts["splits"])}
    del facts["splits"]["test"]
    return (
        dataclasses.replace(snapshot, table=snapshot.table.slice(0, num_rows)),
        dataclasses.replace(splits, test=splits.test[:0], facts=facts),
    )


def _fixed_trials(
    space: Space, fit: FitConfig, settings: TuneConfig, progress: Progress
) -> tuple[Callable[[int], dict[str, Any] | None], int]:
    """Return the values of trials that no sampler chooses, and how many trials there are."""
    if settings.sampler == "grid":
        points = grid_points(space, fit.seed)
        return points.__getitem__, min(settings.num_trials, len(points))
    outside = names_outside(space, fit)
    if outside:
        progress.note(f"no trial has the present settings: {', '.join(outside)} outside the space")
    present = None if outside else present_values(space, fit)
    return (lambda number: present if number == 0 else None), settings.num_trials


class _Search:
    """Runs trials until a budget is spent."""

    def __init__(
        self,
        snapshot: Snapshot,
        splits: Splits,
        *,
        config: TrainConfig,
        num_seeds: int,
        study: Study,
        stops_at: float | None,
    ) -> None:
        self.snapshot = snapshot
        self.splits = splits
        self.config = config
        self.num_seeds = num_seeds
        self.study = study
        self.stops_at = stops_at

    def run(self, num_trials: int, step: Step) -> None:
        """Ask for trials and run them."""
        while not self._is_out_of_time():
            ask = self.study.ask(num_trials)
            if ask is None or not self._run_trial(ask, step):
                return
            with self.study.locked():
                rows = self.study.rows()
                write_results(self.study.folder, self.config, rows)
            best = best_row(rows)
            step.count = sum(row.state not in ("running", "waiting") for row in rows)
            step.advance(0, best="-" if best is None else f"{best.value:.4f}")

    def _run_trial(self, ask: Ask, step: Step) -> bool:
        """Run one trial to its end; return whether there is time for another one."""
        try:
            value = self._value(ask, step)
        except _GivenUp:
            self.study.tell(ask, "pruned")
        except _OutOfTime:
            self.study.put_back(ask)
            return False
        except ChurnError as error:
            self.study.tell(ask, "failed", error=str(error))
        except KeyboardInterrupt:
            self.study.put_back(ask)
            raise
        except Exception as error:
            self.study.tell(ask, "failed", error=f"{type(error).__name__}: {error}")
            raise
        else:
            self.study.tell(ask, "complete", value)
        _drop_weights(self._folder(ask))
        return True

    def _value(self, ask: Ask, step: Step) -> float:
        """Return the mean validation log loss over the seeds."""
        fit = settings_of(self.config.fit, ask.params)
        losses = []
        for index in range(self.num_seeds):
            watch = _Watch(ask, step, self._is_out_of_time, prunes=index == 0)
            folder = self._folder(ask) / f"seed-{fit.seed + index}"
            losses.append(self._fit(dataclasses.replace(fit, seed=fit.seed + index), folder, watch))
        return float(np.mean(losses))

    def _fit(self, fit: FitConfig, folder: Path, watch: LogRow) -> float:
        """Train once and return the validation log loss of the model that training keeps."""
        from trainer.fit.loop import fit_model

        done = read_json(folder / RESULT_FILE)
        if done is None:
            result = fit_model(
                self.snapshot,
                self.splits,
                fit,
                folder,
                progress=Progress(quiet=True),
                on_log=watch,
            )
            done = {"valid_loss": kept_loss(result.history)}
            write_text(folder / RESULT_FILE, to_json(done))
        return float(done["valid_loss"])

    def _folder(self, ask: Ask) -> Path:
        """Return where a trial trains."""
        return self.study.folder / "trials" / f"{ask.number:04d}"

    def _is_out_of_time(self) -> bool:
        """Return whether the time budget is spent."""
        return self.stops_at is not None and time.monotonic() >= self.stops_at


class _Watch:
    """Takes the rows of a training: reports looks, and ends what is hopeless or too late."""

    def __init__(
        self, ask: Ask, step: Step, is_out_of_time: Callable[[], bool], *, prunes: bool
    ) -> None:
        self._ask, self._step, self._is_out_of_time = ask, step, is_out_of_time
        self._prunes = prunes
        self._best = np.inf
        self._num_looks = 0

    def __call__(self, row: Mapping[str, Any]) -> None:
        """Take one row of the history."""
        self._step.advance(0, trial=self._ask.number, stage=row["stage"], epoch=row["epoch"])
        if self._prunes and row["stage"] == FINE_TUNE and "valid_loss" in row:
            self._num_looks += 1
            self._best = min(self._best, row["valid_loss"])
            self._ask.handle.report(self._best, self._num_looks)
            if self._ask.handle.should_prune():
                raise _GivenUp
        if self._is_out_of_time():
            raise _OutOfTime


def kept_loss(history: list[dict[str, Any]]) -> float:
    """Return the validation log loss of the weights that training keeps: the best look's.

    Args:
        history: Rows of a finished training.

    Raises:
        RunError: Fine-tuning never looked at validation.
    """
    losses = [
        row["valid_loss"] for row in history if row["stage"] == FINE_TUNE and "valid_loss" in row
    ]
    if not losses:
        raise RunError("the training never looked at validation; set fit.epochs to 1 or more")
    return float(min(losses))


def _drop_weights(folder: Path) -> None:
    """Delete what only a running trial needs."""
    for seed_dir in folder.glob("seed-*"):
        for name in ("model", "checkpoint"):
            shutil.rmtree(seed_dir / name, ignore_errors=True)
