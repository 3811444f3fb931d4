"""What a search leaves behind: ``trials.csv``, ``best.yaml``, and a table for people."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trainer.config import TrainConfig, to_yaml
from trainer.errors import RunError
from trainer.runs import write_text
from trainer.tune.space import settings_of
from trainer.tune.study import TrialRow

BEST_FILE = "best.yaml"
TRIALS_FILE = "trials.csv"


@dataclasses.dataclass(frozen=True, kw_only=True)
class TuneOutcome:
    """What a search has found so far."""

    study_id: str
    folder: Path
    best: TrialRow
    trials: list[TrialRow]

    @property
    def config_file(self) -> Path:
        """Settings of the best trial."""
        return self.folder / BEST_FILE


def best_row(rows: Sequence[TrialRow]) -> TrialRow | None:
    """Return the complete trial of least value, the earliest of equals; None without any."""
    complete = [row for row in rows if row.state == "complete" and row.value is not None]
    return min(complete, key=lambda row: (row.value, row.number), default=None)


def write_results(folder: Path, config: TrainConfig, rows: Sequence[TrialRow]) -> None:
    """Write the trials, and the settings of the best one when there is one."""
    names = sorted({name for row in rows for name in row.params})
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["number", "state", "value", "seconds", "looks", *names, "error"])
    for row in rows:
        values = [row.params.get(name) for name in names]
        head = [row.number, row.state, row.value, row.seconds, row.looks]
        writer.writerow([*head, *values, row.error])
    write_text(folder / TRIALS_FILE, stream.getvalue())
    best = best_row(rows)
    if best is not None:
        found = dataclasses.replace(config, fit=settings_of(config.fit, best.params))
        title = (
            f"# trial {best.number} of study {folder.name}: validation log loss {best.value:.5f}\n"
        )
        write_text(folder / BEST_FILE, title + to_yaml(found))


def make_outcome(study_id: str, folder: Path, rows: list[TrialRow]) -> TuneOutcome:
    """Return the outcome.

    Raises:
        RunError: No trial is complete.
    """
    best = best_row(rows)
    if best is None:
        errors = [row.error for row in rows if row.error and row.state == "failed"]
        reason = f"; the last one failed: {errors[-1]}" if errors else ""
        raise RunError(
            f"study {study_id} has {len(rows)} trials and none is complete{reason}. The same "
            "command goes on: give it more --max-minutes or --trials"
        )
    return TuneOutcome(study_id=study_id, folder=folder, best=best, trials=rows)


def trial_table(rows: Sequence[TrialRow], most: int) -> str:
    """Return the best trials as text, complete ones first.

    Args:
        rows: Trials.
        most: How many to show.
    """
    ranks = {"complete": 0, "pruned": 1}

    def order(row: TrialRow) -> tuple[int, float, int]:
        value = float("inf") if row.value is None else row.value
        return ranks.get(row.state, 2), value, row.number

    lines = [f"{'trial':>5}  {'state':<9}{'valid loss':>10}{'seconds':>9}  settings"]
    for row in sorted(rows, key=order)[:most]:
        value = "-" if row.value is None else f"{row.value:.4f}"
        settings = " ".join(f"{name.split('.')[-1]}={_short(v)}" for name, v in row.params.items())
        line = f"{row.number:>5}  {row.state:<9}{value:>10}{row.seconds:>9.1f}  {settings}"
        lines.append(f"{line}  {row.error}" if row.state == "failed" else line)
    return "\n".join(lines)


def _short(value: Any) -> str:
    """Return a value in few digits."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
