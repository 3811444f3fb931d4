"""A training that takes no time, for searches; also a program that searches with it."""

from __future__ import annotations

import io
import math
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from training_example import tiny_config

from trainer.data.snapshot import Snapshot
from trainer.data.splits import Splits
from trainer.fit import loop
from trainer.fit.config import FitConfig
from trainer.fit.loop import FitResult
from trainer.progress import Progress
from trainer.tune.config import TuneConfig
from trainer.tune.results import TuneOutcome
from trainer.tune.search import tune
from trainer.tune.space import Dimension

NUM_LOOKS = 7
SPACE = (
    Dimension(name="fit.learning_rate", low=1e-4, high=1e-2, is_log=True),
    Dimension(name="fit.dropout", low=0.0, high=0.5),
    Dimension(name="fit.num_bins", choices=(8, 12)),
)


UNPRUNED = TuneConfig(num_trials=8, pruner="none", sampler="random")


def loss_of(fit: FitConfig) -> float:
    """What the pretended training comes to: least at rate 1e-3, dropout 0.1, 12 bins."""
    bins = 0.05 * (fit.num_bins != 12)
    return 0.4 + (math.log10(fit.learning_rate) + 3) ** 2 + (fit.dropout - 0.1) ** 2 + bins


class FakeFit:
    """Stands in for ``fit_model``; keeps the settings that it was called with."""

    def __init__(self, before: Callable[[int], None] | None = None) -> None:
        self.fits: list[FitConfig] = []
        self.seen: list[tuple[Snapshot, Splits]] = []
        self.num_rows = 0
        self._before = before

    def __call__(
        self,
        snapshot: Snapshot,
        splits: Splits,
        fit: FitConfig,
        folder: Path,
        *,
        progress: Progress,
        on_log: Callable[[Mapping[str, Any]], None],
    ) -> FitResult:
        """Log a few looks that come down to the loss."""
        self.fits.append(fit)
        self.seen.append((snapshot, splits))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "model").mkdir(exist_ok=True)
        if self._before:
            self._before(len(self.fits))
        history: list[dict[str, Any]] = [{"stage": "numeric", "epoch": 1.0, "valid_loss": 0.0}]
        for look in range(NUM_LOOKS):
            value = loss_of(fit) + 0.01 * (NUM_LOOKS - 1 - look)
            history.append({"stage": "fine-tune", "epoch": look / 2, "valid_loss": value})
        for row in history:
            self.num_rows += 1
            on_log(row)
        return FitResult(model_dir=folder / "model", history=history, facts={})


class Killed(BaseException):
    """Stands for a process that dies."""


def use_fake(monkeypatch: pytest.MonkeyPatch, before: Any = None) -> FakeFit:
    made = FakeFit(before)
    monkeypatch.setattr("trainer.fit.loop.fit_model", made)
    return made


def run(snapshot: Snapshot, folder: Path, settings: TuneConfig, **changes: Any) -> TuneOutcome:
    options = {"space": SPACE, "progress": Progress(io.StringIO()), **changes}
    return tune(snapshot, options.pop("config", tiny_config()), settings, folder, **options)


def facts(outcome: TuneOutcome) -> list[tuple[Any, ...]]:
    return [(row.number, row.state, row.value, row.params) for row in outcome.trials]


def main() -> None:
    """Search in a process of its own: SNAPSHOT STUDIES_DIR TRIALS [DIES_AT]."""
    dies_at = int(sys.argv[4]) if len(sys.argv) > 4 else None

    def before(number: int) -> None:
        time.sleep(0.05)
        if number == dies_at:
            os._exit(9)

    loop.fit_model = FakeFit(before)
    tune(
        Snapshot.open(Path(sys.argv[1])),
        tiny_config(),
        TuneConfig(num_trials=int(sys.argv[3]), sampler="random", pruner="none"),
        Path(sys.argv[2]),
        space=SPACE,
        progress=Progress(quiet=True),
    )


if __name__ == "__main__":
    main()
