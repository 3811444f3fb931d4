"""Rolling the cutoff through history: what the product would have said, and what then happened.

At every cutoff the data are cut as they stood then: later rows are gone, and no label that was not
known takes part in training. Models that were trained at earlier cutoffs are scored at the later
ones too, so that a team sees how fast a model ages and how often to train again.
"""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from churn_udf.calibration import Calibrator
from churn_udf.contracts.bundle import CALIBRATION_FILE, METRICS_FILE
from trainer.candidates import shipped_logits
from trainer.config import TrainConfig, to_mapping
from trainer.data.snapshot import Snapshot
from trainer.data.splits import as_date
from trainer.errors import ConfigError, SplitError
from trainer.evaluate import classification_metrics, paired_difference
from trainer.judging import is_evaluated
from trainer.pipeline import Workspace, evaluate_step, fit_step
from trainer.runs import PREDICTIONS_FILE, Run, short_hash, to_json, write_text

FloatArray: TypeAlias = npt.NDArray[np.float64]
BACKTEST_FILE = "backtest.json"
REPORTED = ("auroc", "average_precision", "log_loss", "brier_score", "expected_calibration_error")


@dataclasses.dataclass(frozen=True, kw_only=True)
class BacktestConfig:
    """Which cutoffs, and when to train."""

    num_cutoffs: int = 6
    """Most test cutoffs, the newest that can be tested out of time."""
    every: int = 4
    """Steps of the snapshot's cutoffs between two tests."""
    retrain_every: int = 1
    """Tests between two trainings; 0 trains at the first one alone."""
    dates: tuple[datetime.date, ...] = ()
    """Test cutoffs by name, instead of the newest."""

    def __post_init__(self) -> None:
        """Check the bounds."""
        for name, least in (("num_cutoffs", 1), ("every", 1), ("retrain_every", 0)):
            if getattr(self, name) < least:
                option = f"--{name.replace('_', '-')}"
                raise ConfigError(f"{option} is {getattr(self, name)}; allowed: {least} or more")


def backtest(
    snapshot: Snapshot, config: TrainConfig, plan: BacktestConfig, workspace: Workspace
) -> tuple[Path, dict[str, Any]]:
    """Train and judge at past cutoffs; what an earlier call finished is not repeated.

    Args:
        snapshot: The whole history.
        config: Settings of every training.
        plan: Which cutoffs, and when to train.
        workspace: Runs go to ``runs_dir/backtest-<id>``.

    Returns:
        The folder, and the content of ``backtest.json``: ``cutoffs`` (one per test: base rate,
        trained or not, metrics by model, differences to the best baseline) and ``ages`` (every
        model on every later cutoff).

    Raises:
        SplitError: No cutoff can be tested out of time.
        ConfigError: A date is no cutoff of the snapshot, or its label is not known.
    """
    dates = plan.dates or tuple(_testable(snapshot)[:: -plan.every][: plan.num_cutoffs])
    dates = tuple(sorted(dates))
    if not dates:
        raise SplitError(
            "no cutoff can be tested out of time: two horizons of labelled history are needed "
            "before it. Load more history or lower churn__horizon_days"
        )
    _require_labels(snapshot, dates)
    content = {
        "snapshot_id": snapshot.snapshot_id,
        "dates": [date.isoformat() for date in dates],
        "retrain_every": plan.retrain_every,
        "config": to_mapping(config),
    }
    folder = workspace.runs_dir / f"backtest-{short_hash(content)}"
    inner = dataclasses.replace(workspace, runs_dir=folder / "runs")
    trained: dict[datetime.date, Run] = {}
    cutoffs: list[dict[str, Any]] = []
    ages: list[dict[str, Any]] = []
    for index, date in enumerate(dates):
        is_training = index == 0 or (plan.retrain_every and index % plan.retrain_every == 0)
        past = snapshot.until(date)
        rows = _labelled_rows(snapshot, date)
        facts: dict[str, Any] = {
            "cutoff": date.isoformat(),
            "rows": len(rows),
            "base_rate": float(snapshot.labels[rows].mean()),
            "is_trained": bool(is_training),
        }
        if is_training:
            workspace.progress.note(f"backtest: training as of {date}")
            trained[date] = run = _train(past, config, inner)
            facts |= _fresh_facts(run, config)
        for trained_at, run in trained.items():
            with workspace.progress.step(f"model of {trained_at} at {date}"):
                ages.append(_aged_facts(run, snapshot, rows, trained_at, date))
        facts["in_charge"] = ages[-1]
        cutoffs.append(facts)
        document = {**content, "cutoffs": cutoffs, "ages": ages}
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / BACKTEST_FILE, to_json(document))
    return folder, document


def ageing(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return, by age, how much worse a model is than one trained at the tested cutoff itself.

    Args:
        document: Of ``backtest``.

    Returns:
        Rows with age_days, pairs (cutoffs with both models), auroc_loss and log_loss_gain, means.
    """
    fresh = {one["tested_at"]: one for one in document["ages"] if one["age_days"] == 0}
    by_age: dict[int, list[tuple[float, float]]] = {}
    for one in document["ages"]:
        now = fresh.get(one["tested_at"])
        if now is None or one["age_days"] == 0:
            continue
        metrics, new = one["metrics"], now["metrics"]
        pair = (new["auroc"] - metrics["auroc"], metrics["log_loss"] - new["log_loss"])
        by_age.setdefault(one["age_days"], []).append(pair)
    return [
        {
            "age_days": age,
            "pairs": len(pairs),
            "auroc_loss": float(np.mean([pair[0] for pair in pairs])),
            "log_loss_gain": float(np.mean([pair[1] for pair in pairs])),
        }
        for age, pairs in sorted(by_age.items())
    ]


def _train(past: Snapshot, config: TrainConfig, workspace: Workspace) -> Run:
    """Fit and judge at one cutoff, unless that is done."""
    run = fit_step(past, config, workspace)
    if not is_evaluated(run):
        evaluate_step(run, past, workspace)
    return run


def _fresh_facts(run: Run, config: TrainConfig) -> dict[str, Any]:
    """Return what the run at a cutoff found: metrics by model, differences to the best baseline."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    metrics = run.read_json(METRICS_FILE)
    table = pq.read_table(run.path / PREDICTIONS_FILE).filter(pc.field("split") == "test")
    labels = table.column("label").to_numpy()
    best = metrics.get("best_baseline")
    differences = {}
    for name in metrics["test"]:
        if best is None or name == best:
            continue
        found = paired_difference(
            labels,
            table.column(name).to_numpy(),
            table.column(best).to_numpy(),
            num_samples=config.evaluate.num_bootstrap,
            seed=config.fit.seed,
            groups=np.asarray(table.column("user_id").to_pylist()),
            confidence=config.evaluate.confidence,
        )
        differences[name] = {metric: found[metric]._asdict() for metric in ("auroc", "log_loss")}
    return {
        "run_id": run.run_id,
        "model": metrics["model"],
        "ensemble": metrics["ensemble"],
        "best_baseline": best,
        "splits": metrics["splits"],
        "fits": metrics["fits"],
        "metrics": {
            name: {metric: values[metric] for metric in REPORTED}
            for name, values in metrics["test"].items()
        },
        "differences": differences,
    }


def _aged_facts(
    run: Run,
    snapshot: Snapshot,
    rows: npt.NDArray[np.int64],
    trained_at: datetime.date,
    date: datetime.date,
) -> dict[str, Any]:
    """Return how what a run ships does at a cutoff."""
    text = (run.path / CALIBRATION_FILE).read_text(encoding="utf-8")
    probabilities = Calibrator.from_json(text).apply(shipped_logits(run, snapshot, rows))
    found = classification_metrics(snapshot.labels[rows], probabilities, 0.5)
    return {
        "trained_at": trained_at.isoformat(),
        "tested_at": date.isoformat(),
        "age_days": (date - trained_at).days,
        "mean_probability": float(probabilities.mean()),
        "metrics": {metric: found[metric] for metric in REPORTED},
    }


def _testable(snapshot: Snapshot) -> list[datetime.date]:
    """Return the labelled cutoffs that leave training and validation labels before them."""
    settings = snapshot.model_settings
    reach = datetime.timedelta(days=settings.gap_days + settings.horizon_days)
    known = ~np.isnan(snapshot.labels)
    mature = [as_date(value) for value in np.unique(snapshot.cutoff_dates[known])]
    return [date for date in mature if any(other + 2 * reach <= date for other in mature)]


def _labelled_rows(snapshot: Snapshot, date: datetime.date) -> npt.NDArray[np.int64]:
    """Return the labelled rows of a cutoff."""
    at_date = snapshot.cutoff_dates == np.datetime64(date, "D")
    return np.flatnonzero(at_date & ~np.isnan(snapshot.labels))


def _require_labels(snapshot: Snapshot, dates: Sequence[datetime.date]) -> None:
    """Refuse dates that cannot be judged."""
    known = np.unique(snapshot.cutoff_dates[~np.isnan(snapshot.labels)])
    missing = [date for date in dates if np.datetime64(date, "D") not in known]
    if missing:
        raise ConfigError(
            f"--dates names {', '.join(map(str, missing))}; allowed: cutoffs of snapshot "
            f"{snapshot.snapshot_id} whose labels are known, {known[0]} to {known[-1]} "
            f"({len(known)} of them)"
        )
