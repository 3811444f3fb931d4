"""The fits of a run: one to choose on, then the same again on every label that is known.

A model chosen on validation rows has learned from labels that are two horizons old when the test
begins. Churn moves; so once everything is chosen the model is trained again, with the same
vocabulary and pretrained encoder and for the share of the schedule that was best, on newer labels:
those known at the test cutoff, which gives the model that the test judges, and those known at the
score cutoff, which gives the model that scores.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trainer.data.snapshot import Snapshot
from trainer.data.splits import Splits
from trainer.fit.config import FitConfig
from trainer.progress import Progress

FIRST, REFIT, FINAL = "first", "refit", "final"
FITS_DIR = "fits"
NUMERIC_STAGE = "numeric"
DONE_FILE = "done.json"
LEAST_NUMERIC_SHARE = 0.25
"""A few hundred old rows are learned at a glance; many newer ones need more than a glance."""
_GAIN = 1e-5  # as in training: a loss lower by less is not lower


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fits:
    """The fits of a run; where one was not needed, the one before stands in."""

    first: Path
    """Model directory: learned from training rows, chosen on validation rows."""
    judged: Path
    """Model directory: predicts the test rows."""
    shipped: Path
    """Model directory: scores."""
    history: list[dict[str, Any]]
    """Rows of ``history.jsonl`` of the first fit."""
    facts: dict[str, Any]
    """Of the first fit, with ``refits`` (fit -> rows, cutoffs, seconds), ``models`` (fit -> folder
    in the run) and ``stop_shares``."""

    @classmethod
    def of(cls, run_dir: Path, facts: dict[str, Any], history: list[dict[str, Any]]) -> Fits:
        """Return the fits that a run's ``fit.json`` tells of."""
        folders = {name: run_dir / folder / "model" for name, folder in facts["models"].items()}
        return cls(
            first=folders[FIRST],
            judged=folders[REFIT],
            shipped=folders[FINAL],
            history=history,
            facts=facts,
        )


def fit_all(
    snapshot: Snapshot,
    splits: Splits,
    config: FitConfig,
    run_dir: Path,
    *,
    progress: Progress,
    on_log: Callable[[Mapping[str, Any]], None] | None = None,
    start: Any = None,
) -> Fits:
    """Make every fit that the settings ask for; those that are done are not repeated.

    Args:
        snapshot: The rows.
        splits: Which of them train, validate, test and refit.
        config: Model and training settings; ``refit`` says which fits there are.
        run_dir: Fits go to ``run_dir/fits/<name>``.
        progress: Shows steps.
        on_log: Called with every row of the first fit's history as it comes.
        start: ``WarmStart`` for the fits that may take it; None starts all of them anew.

    Raises:
        ConfigError: A setting cannot be used.
        TrainingDivergedError: The loss is not finite.
    """
    from trainer.fit.encoder_store import EncoderStore
    from trainer.fit.loop import EarlierFit

    store = EncoderStore(run_dir / FITS_DIR / "encoders")
    first_dir = run_dir / FITS_DIR / FIRST
    limits = {FIRST: splits.plan.valid[0], REFIT: splits.plan.test[0]}
    allowed, starts = _allowed_starts(start, limits, splits, progress)
    done = _fit_once(
        snapshot, splits, config, first_dir, progress, store, None, on_log, allowed[FIRST]
    )
    directories = {FIRST: first_dir, REFIT: first_dir, FINAL: first_dir}
    earlier = EarlierFit(stop_shares=best_shares(done["history"]))
    refits: dict[str, Any] = {}
    rows_before = splits.train
    for name, rows in planned_refits(splits, config.refit).items():
        if np.array_equal(rows, rows_before):
            directories[name] = directories[REFIT]
            continue
        rows_before = rows
        directories[name] = run_dir / FITS_DIR / name
        progress.note(f"{name}: training again on {len(rows):,} rows with labels known by then")
        again = dataclasses.replace(splits, train=rows)
        found = _fit_once(
            *(snapshot, again, config, directories[name], progress, store, earlier),
            start=allowed[name],
        )
        refits[name] = {**splits.facts["fits"][name], "seconds": found["facts"]["seconds"]}
    if REFIT in refits and FINAL not in planned_refits(splits, config.refit):
        directories[FINAL] = directories[REFIT]
    models = {name: path.relative_to(run_dir).as_posix() for name, path in directories.items()}
    shares = dict(earlier.stop_shares)
    facts = {**done["facts"], "stop_shares": shares, "refits": refits, "models": models}
    if start is not None:
        facts["starts"] = {name: starts[name] for name in (FIRST, *refits)}
    return Fits.of(run_dir, facts, done["history"])


def _allowed_starts(
    start: Any, limits: Mapping[str, Any], splits: Splits, progress: Progress
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return fit -> what it starts from, and the same in words; the last fit is not judged."""
    allowed: dict[str, Any] = dict.fromkeys((FIRST, REFIT, FINAL), start)
    if start is None:
        return allowed, {}
    told = dict.fromkeys(allowed, str(start.bundle_id))
    for name, limit in limits.items():
        problem = start.problem_of(limit, splits)
        if problem:
            allowed[name] = None
            told[name] = f"anew: {problem}"
            progress.note(f"{name}: starts {told[name]}")
    return allowed, told


def planned_refits(splits: Splits, refit: str) -> dict[str, Any]:
    """Return fit -> rows, in order, for a setting of ``fit.refit``."""
    chosen = {"none": (), "test": (REFIT,), "all": (REFIT, FINAL)}[refit]
    return {name: getattr(splits, name) for name in chosen}


def best_shares(history: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return stage -> share of its schedule after which the validation loss was lowest.

    Args:
        history: Rows of training; a stage that never looked at validation is not listed.
    """
    best: dict[str, tuple[float, float]] = {}
    for row in history:
        if "valid_loss" not in row:
            continue
        stage, loss = str(row["stage"]), float(row["valid_loss"])
        if stage not in best or loss < best[stage][0] - _GAIN:
            best[stage] = (loss, float(row["share"]))
    shares = {stage: share for stage, (_, share) in best.items()}
    if NUMERIC_STAGE in shares:
        shares[NUMERIC_STAGE] = max(shares[NUMERIC_STAGE], LEAST_NUMERIC_SHARE)
    return shares


def clear_fits(run_dir: Path) -> None:
    """Forget every fit of a run."""
    shutil.rmtree(run_dir / FITS_DIR, ignore_errors=True)


def _fit_once(
    snapshot: Snapshot,
    splits: Splits,
    config: FitConfig,
    directory: Path,
    progress: Progress,
    encoders: Any,
    earlier: Any,
    on_log: Callable[[Mapping[str, Any]], None] | None = None,
    start: Any = None,
) -> dict[str, Any]:
    """Fit, or return what the fit left when an earlier process finished it."""
    from trainer.fit.loop import fit_model

    file = directory / DONE_FILE
    if file.is_file():
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        if on_log is not None:
            for row in found["history"]:
                on_log(row)
        return found
    if earlier is not None:  # a repeated fit looks at no validation row, which guards these
        config = dataclasses.replace(config, pseudo_labels=False)
    result = fit_model(
        snapshot,
        splits,
        config,
        directory,
        progress=progress,
        encoders=encoders,
        earlier=earlier,
        on_log=on_log,
        start=start,
    )
    done = {"facts": result.facts, "history": result.history}
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps(done), encoding="utf-8")
    partial.replace(file)
    return done
