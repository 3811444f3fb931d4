"""A search on disk: Optuna's journal, the locks that let processes share it, and its results.

    <studies_dir>/<study_id>/
        journal.log      every trial, appended by all processes
        trials/<number>/ training histories; a checkpoint while a trial is under way
        trials.csv       one row per trial
        best.yaml        the settings of the best trial, for --config
        study.lock  workers/<id>.lock

Asking for a trial and changing its state happen under ``study.lock``. A worker holds its own lock
while it lives, and the operating system frees it when it dies, so a trial that is marked as running
by nobody is found and queued again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from trainer.errors import ConfigError
from trainer.tune.space import Dimension, Space

JOURNAL_FILE = "journal.log"
LOCK_FILE = "study.lock"
WORKERS_DIR = "workers"
MAX_KILLS = 3
STARTUP_TRIALS = 10


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrialRow:
    """One trial as people see it; attempts that were killed count to the same one."""

    number: int
    """Place in the search, from 0 on."""
    state: str
    """``complete``, ``pruned``, ``failed``, ``running`` or ``waiting``."""
    value: float | None
    """Validation log loss; of a pruned trial, the best that it had reached."""
    seconds: float
    """Time of all attempts."""
    looks: int
    """Looks at validation during fine-tuning."""
    params: dict[str, Any]
    """Setting -> value."""
    error: str | None
    """Why it failed."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ask:
    """A trial to run."""

    number: int
    params: dict[str, Any]
    handle: Any
    """Optuna's trial."""


class Study:
    """A search that processes share.

    Args:
        folder: Its directory; made when missing.
        space: What to search.
        sampler: ``tpe``, ``random`` or ``grid``.
        pruner: ``median``, ``halving`` or ``none``.
        seed: Every suggestion follows from it, its number and the trials before it.
        fixed: Trial number -> its values, or None to let the sampler choose.

    Raises:
        ConfigError: Optuna is not installed.
    """

    def __init__(
        self,
        folder: Path,
        *,
        space: Space,
        sampler: str,
        pruner: str,
        seed: int,
        fixed: Callable[[int], dict[str, Any] | None],
    ) -> None:
        self._optuna = import_optuna()
        self.folder = folder
        self._space, self._sampler, self._seed, self._fixed = space, sampler, seed, fixed
        self._worker = uuid.uuid4().hex
        (folder / WORKERS_DIR).mkdir(parents=True, exist_ok=True)
        with self.locked():
            journal = folder / JOURNAL_FILE
            _cut_half_line(journal)
            backend = self._optuna.storages.journal.JournalFileBackend(str(journal))
            self._study = self._optuna.create_study(
                storage=self._optuna.storages.JournalStorage(backend),
                study_name="study",
                direction="minimize",
                load_if_exists=True,
                pruner=_make_pruner(self._optuna, pruner),
            )

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """Be alive to other processes."""
        path = self._worker_file(self._worker)
        with path.open("a") as stream:
            _try_lock(stream)
            try:
                yield
            finally:
                path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from changing the study."""
        import fcntl

        with (self.folder / LOCK_FILE).open("a") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            yield

    def ask(self, max_trials: int) -> Ask | None:
        """Return the next trial, one that was cut short first, or None when all are given out.

        Args:
            max_trials: Trials of the study in all.
        """
        with self.locked():
            self._queue_orphans()
            trials = self._trials()
            waiting = [trial for trial in trials if trial.state.name == "WAITING"]
            if waiting:
                number = waiting[0].user_attrs["number"]
            else:
                number = _next_number(trials)
                if number >= max_trials:
                    return None
                values = self._fixed(number)
                if values is not None:
                    self._study.enqueue_trial(values, user_attrs={"number": number})
            self._study.sampler = self._make_sampler(number)
            trial = self._study.ask()
            trial.set_user_attr("number", number)
            params = {dimension.name: _suggest(trial, dimension) for dimension in self._space}
            trial.set_user_attr("worker", self._worker)
        return Ask(number=number, params=params, handle=trial)

    def tell(self, ask: Ask, state: str, value: float | None = None, error: str = "") -> None:
        """End a trial as ``complete``, ``pruned`` or ``failed``."""
        states = self._optuna.trial.TrialState
        named = {"complete": states.COMPLETE, "pruned": states.PRUNED, "failed": states.FAIL}
        with self.locked():
            if error:
                ask.handle.set_user_attr("error", error)
            self._study.tell(ask.handle, value, state=named[state])

    def put_back(self, ask: Ask) -> None:
        """Queue a trial that could not be finished; it goes on from its checkpoint."""
        with self.locked():
            (trial,) = [t for t in self._trials() if t.number == ask.handle.number]
            self._queue_again(trial, kills=trial.user_attrs.get("kills", 0))

    def rows(self) -> list[TrialRow]:
        """Return every trial, in the order of their numbers."""
        attempts: dict[int, list[Any]] = {}
        for trial in self._trials():
            attempts.setdefault(trial.user_attrs.get("number", -1), []).append(trial)
        return [_row(number, attempts[number]) for number in sorted(attempts) if number >= 0]

    def _trials(self) -> list[Any]:
        """Return Optuna's trials, each attempt one."""
        trials: list[Any] = self._study.get_trials(deepcopy=False)
        return trials

    def _queue_orphans(self) -> None:
        """Queue the trials of dead processes again; one that killed three is given up."""
        for trial in self._trials():
            if trial.state.name != "RUNNING" or self._is_alive(trial.user_attrs.get("worker")):
                continue
            kills = trial.user_attrs.get("kills", 0) + 1
            if kills < MAX_KILLS:
                self._queue_again(trial, kills=kills)
            else:
                self._give_up(trial, f"its process was killed {kills} times")

    def _queue_again(self, trial: Any, *, kills: int) -> None:
        """Close one attempt and queue another one with the same values."""
        number = trial.user_attrs.get("number", _next_number(self._trials()))
        self._study.enqueue_trial(trial.params, user_attrs={"number": number, "kills": kills})
        self._give_up(trial, "cut short")

    def _give_up(self, trial: Any, error: str) -> None:
        """Mark an attempt as failed."""
        storage = self._study._storage
        storage.set_trial_user_attr(trial._trial_id, "error", error)
        self._study.tell(trial.number, state=self._optuna.trial.TrialState.FAIL)

    def _is_alive(self, worker: str | None) -> bool:
        """Return whether a worker still holds its lock."""
        if worker is None or not self._worker_file(worker).is_file():
            return False
        with self._worker_file(worker).open("a") as stream:
            return not _try_lock(stream)

    def _worker_file(self, worker: str) -> Path:
        """Return the file that a worker locks."""
        return self.folder / WORKERS_DIR / f"{worker}.lock"

    def _make_sampler(self, number: int) -> Any:
        """Return a sampler seeded for one trial, so that a resumed search repeats none."""
        seed = int(np.random.SeedSequence([self._seed, number]).generate_state(1)[0])
        samplers = self._optuna.samplers
        if self._sampler == "tpe":
            return samplers.TPESampler(seed=seed, n_startup_trials=STARTUP_TRIALS)
        return samplers.RandomSampler(seed=seed)


def import_optuna() -> Any:
    """Return the package, its own log kept to errors.

    Raises:
        ConfigError: It is not installed; names the extra.
    """
    try:
        import optuna
    except ImportError as error:
        raise ConfigError(
            f"a search needs Optuna, which cannot be imported ({error}); run "
            "`pip install 'warehouse-churn[tune]'`"
        ) from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def _make_pruner(optuna: Any, name: str) -> Any:
    """Return a pruner; steps are looks at validation, counted from 1."""
    if name == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=1)
    if name == "halving":
        return optuna.pruners.SuccessiveHalvingPruner(min_resource=2, reduction_factor=3)
    return optuna.pruners.NopPruner()


def _suggest(trial: Any, dimension: Dimension) -> Any:
    """Return the trial's value of a setting."""
    if dimension.choices:
        return trial.suggest_categorical(dimension.name, list(dimension.choices))
    suggest = trial.suggest_int if dimension.is_whole else trial.suggest_float
    return suggest(dimension.name, dimension.low, dimension.high, log=dimension.is_log)


def _next_number(trials: list[Any]) -> int:
    """Return the number of the next new trial; attempts at one share theirs."""
    return len({t.user_attrs["number"] for t in trials if "number" in t.user_attrs})


def _row(number: int, attempts: list[Any]) -> TrialRow:
    """Return what the attempts at a trial came to."""
    last = attempts[-1]
    names = {"FAIL": "failed"}
    seconds = [trial.duration.total_seconds() for trial in attempts if trial.duration]
    values = [*last.intermediate_values.values(), last.value]
    found = [value for value in values if value is not None]
    return TrialRow(
        number=number,
        state=names.get(last.state.name, last.state.name.lower()),
        value=last.value if last.state.name == "COMPLETE" else min(found, default=None),
        seconds=round(sum(seconds), 1),
        looks=len(last.intermediate_values),
        params=dict(last.params) or dict(last.system_attrs.get("fixed_params", {})),
        error=last.user_attrs.get("error"),
    )


def _try_lock(stream: IO[str]) -> bool:
    """Return whether the lock of an open file could be taken."""
    import fcntl

    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _cut_half_line(journal: Path) -> None:
    """Drop the end of a journal whose writer was killed in the middle of a line."""
    if not journal.is_file():
        return
    content = journal.read_bytes()
    if content and not content.endswith(b"\n"):
        os.truncate(journal, content.rfind(b"\n") + 1)
