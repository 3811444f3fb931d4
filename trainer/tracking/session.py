"""One tracked run: the chosen trackers started together, fed alike, and never in the way."""

from __future__ import annotations

import contextlib
import importlib
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from trainer.errors import ConfigError
from trainer.progress import Progress
from trainer.tracking.config import TrackingConfig

FINISHED = "finished"
FAILED = "failed"
CLASSES = {"tensorboard": "TensorBoardTracker", "wandb": "WandbTracker", "mlflow": "MlflowTracker"}
RESULT_SECTIONS = ("test", "valid", "differences")


class Tracker(Protocol):
    """What a tracker can do. Its constructor imports the package, and nothing else does."""

    def start(self, facts: Mapping[str, str], params: Mapping[str, Any]) -> None:
        """Begin a run.

        Args:
            facts: Who the run is: ``run_id``, ``snapshot_id``, ...
            params: Settings by full name, ``fit.epochs`` -> 2.
        """

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Log finite numbers.

        Args:
            metrics: Name such as ``fine-tune/valid_loss`` -> value.
            step: Place in the run, from 0 on.
        """

    def artifact(self, path: Path) -> None:
        """Keep a copy of a file."""

    def end(self, status: str) -> None:
        """End the run as ``finished`` or ``failed``."""


class TrackedRun:
    """Feeds the trackers of one run; one that fails is warned about once and never raises.

    Args:
        trackers: Name -> tracker, started already.
        progress: Shows warnings.
    """

    def __init__(self, trackers: Mapping[str, Tracker], progress: Progress) -> None:
        self._trackers = dict(trackers)
        self._progress = progress
        self._warned: set[str] = set()
        self._num_rows = 0

    def on_log(self, row: Mapping[str, Any]) -> None:
        """Log a row of the training history under the name of its stage."""
        stage = str(row.get("stage", "train"))
        metrics = flat_numbers({key: value for key, value in row.items() if key != "stage"})
        named = {f"{stage}/{name}": value for name, value in metrics.items()}
        step, self._num_rows = self._num_rows, self._num_rows + 1
        self._each(lambda tracker: tracker.log(named, step))

    def results(self, metrics: Mapping[str, Any], *artifacts: Path) -> None:
        """Log what a run was judged by.

        Args:
            metrics: Content of ``metrics.json``; intervals become ``name``, ``name_low`` and
                ``name_high``.
            artifacts: Files to keep, such as report and model card.
        """
        chosen = {name: metrics[name] for name in RESULT_SECTIONS if name in metrics}
        numbers = flat_numbers(chosen)
        self._each(lambda tracker: tracker.log(numbers, self._num_rows))
        for path in artifacts:
            self._each(lambda tracker, path=path: tracker.artifact(path))  # type: ignore[misc]

    def start(self, facts: Mapping[str, str], params: Mapping[str, Any]) -> None:
        """Start every tracker; one that cannot start is left out."""
        for name in list(self._trackers):
            if not self._try(name, lambda tracker: tracker.start(facts, params)):
                del self._trackers[name]

    def end(self, status: str) -> None:
        """End every tracker."""
        self._each(lambda tracker: tracker.end(status))

    def _each(self, action: Callable[[Tracker], None]) -> None:
        """Do something with every tracker."""
        for name in self._trackers:
            self._try(name, action)

    def _try(self, name: str, action: Callable[[Tracker], None]) -> bool:
        """Do something with a tracker and return whether it worked."""
        try:
            action(self._trackers[name])
        except Exception as error:  # whatever a tracker does, training goes on
            if name not in self._warned:
                self._warned.add(name)
                self._progress.warn(
                    f"the tracker {name} failed ({type(error).__name__}: {error}); the run goes "
                    "on, and what it logs there may be incomplete"
                )
            return False
        return True


def require_trackers(config: TrackingConfig) -> dict[str, Tracker]:
    """Return the chosen trackers, not started yet.

    Raises:
        ConfigError: A package is not installed; names the extra.
    """
    return {name: _make_tracker(name, config) for name in config.trackers}


@contextlib.contextmanager
def track_run(
    config: TrackingConfig,
    *,
    facts: Mapping[str, str],
    params: Mapping[str, Any],
    progress: Progress,
) -> Iterator[TrackedRun]:
    """Track what happens inside; an exception ends the trackers as failed.

    Args:
        config: Which trackers.
        facts: ``run_id``, ``snapshot_id``, ...
        params: Nested settings; they are logged by full name.
        progress: Shows warnings.

    Raises:
        ConfigError: A tracker is not installed.
    """
    tracked = TrackedRun(require_trackers(config), progress)
    tracked.start(facts, flat_settings(params))
    try:
        yield tracked
    except BaseException:
        tracked.end(FAILED)
        raise
    tracked.end(FINISHED)


def flat_settings(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings by full name: ``{"fit": {"epochs": 2}}`` -> ``fit.epochs``."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat.update(flat_settings(value, f"{prefix}{key}."))
        else:
            is_list = isinstance(value, (list, tuple))
            flat[f"{prefix}{key}"] = ", ".join(map(str, value)) if is_list else value
    return flat


def flat_numbers(tree: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Return the finite numbers of a nested mapping; an interval's value loses its own name."""
    flat: dict[str, float] = {}
    for key, value in tree.items():
        name = prefix[:-1] if key == "value" and prefix else f"{prefix}{key}"
        if isinstance(value, Mapping):
            # MLflow's file store cannot hold both `auroc` and `auroc/low`.
            flat.update(flat_numbers(value, name + ("_" if "value" in value else "/")))
        elif isinstance(value, (int, float)) and math.isfinite(value):
            flat[name] = float(value)
    return flat


def _make_tracker(name: str, config: TrackingConfig) -> Tracker:
    """Return a tracker, or say which extra brings its package."""
    module = importlib.import_module(f"trainer.tracking.{name}_tracker")
    try:
        tracker: Tracker = getattr(module, CLASSES[name])(config)
    except ImportError as error:
        raise ConfigError(
            f"tracking.trackers names {name}, which cannot be imported ({error}); run "
            f"`pip install 'warehouse-churn[{name}]'` or leave it out"
        ) from error
    return tracker
