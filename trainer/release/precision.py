"""Choosing what the encoder computes in: the fastest mode whose scores stay within bounds.

The modes are tried on validation rows with the members, weights, calibration and tiers that ship,
against fp32. Activation ranges of int8 are taken from training rows. Speed itself is not timed
here: the order of the modes is that of ``benchmarks/bench_score.py``, so that the same inputs give
the same bundle on a busy machine, too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from churn_udf.calibration import Calibrator
from churn_udf.contracts.bundle import CALIBRATION_FILE, THRESHOLDS_FILE
from churn_udf.model.ensemble import BERT, EnsembleRunner, read_ensemble
from churn_udf.model.precision import BF16, FP32, INT8, Precision, usable_mode
from churn_udf.model.quantization import calibrate_activations
from churn_udf.model.runner import ModelRunner
from churn_udf.thresholds import Thresholds
from trainer.config import PrecisionConfig
from trainer.data.snapshot import Snapshot
from trainer.data.splits import Splits
from trainer.evaluate.metrics import classification_metrics
from trainer.runs import Run

FloatArray: TypeAlias = npt.NDArray[np.float64]
IntArray: TypeAlias = npt.NDArray[np.int64]

FAST_MODES = (INT8, BF16)
"""Fastest first, as measured."""
CALIBRATION_ROWS = 1_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Drift:
    """How far a mode's scores lie from those of fp32."""

    max_probability_change: float
    auroc_change: float
    """NaN where the rows hold one class only."""
    tier_flips: float
    """Share of rows in another tier."""

    def is_within(self, bounds: PrecisionConfig) -> bool:
        """Return whether every bound is kept; what cannot be known is not kept."""
        return (
            self.max_probability_change <= bounds.max_probability_change
            and abs(self.auroc_change) <= bounds.max_auroc_change
            and self.tier_flips <= bounds.max_tier_flips
        )


def choose_precision(run: Run, snapshot: Snapshot, splits: Splits) -> Precision | None:
    """Return the precision to ship with the run's model; None where no encoder scores.

    Args:
        run: A judged run; ``run.model_dir`` holds what ships.
        snapshot: Its rows.
        splits: Its splits.
    """
    ensemble = read_ensemble(run.model_dir)
    if BERT not in ensemble.weights:
        return None
    bounds = run.config.precision
    rows = splits.valid[-bounds.max_rows :]
    exact = ModelRunner.load(run.model_dir, device="cpu", precision=FP32)
    exact_logits = _logits(exact, snapshot, rows)
    whole = EnsembleRunner.load(run.model_dir, snapshot.features, device="cpu", precision=FP32).run(
        *snapshot.texts(rows), snapshot.feature_matrix[rows], with_effects=False
    )
    tried: dict[str, Any] = {}
    passed = []
    ranges = (
        _activation_ranges(exact, snapshot, splits, run.config.fit.seed)
        if INT8 in bounds.modes
        else {}
    )
    for mode in FAST_MODES:
        if mode not in bounds.modes:
            tried[mode] = {"is_within": False, "reason": "not among precision.modes"}
            continue
        precision = Precision(mode=mode, activation_ranges=ranges if mode == INT8 else {})
        runner = ModelRunner(exact.model, exact.tokenizer, device="cpu", precision=precision)
        if runner.mode != mode:
            reason = usable_mode(mode, torch.device("cpu"))[1] or "not for this kind of encoder"
            tried[mode] = {"is_within": False, "reason": reason}
            continue
        moved = ensemble.weights[BERT] * (_logits(runner, snapshot, rows) - exact_logits)
        drift = _drift(run, snapshot.labels[rows], whole.logits, whole.logits + moved)
        is_within = drift.is_within(bounds)
        tried[mode] = {"is_within": is_within, **_rounded(dataclasses.asdict(drift))}
        if is_within:
            passed.append(mode)
    chosen = passed[0] if passed else FP32
    return Precision(
        mode=chosen,
        fallback=BF16 if BF16 in passed else FP32,
        activation_ranges=ranges if chosen == INT8 else {},
        check={"rows": len(rows), "bounds": dataclasses.asdict(bounds), "modes": tried},
    )


def _logits(runner: ModelRunner, snapshot: Snapshot, rows: IntArray) -> FloatArray:
    """Return (N,) logits of the encoder's model."""
    texts, features = snapshot.texts(rows), snapshot.feature_matrix[rows]
    return runner.run(*texts, features, with_effects=False).logits


def _activation_ranges(
    runner: ModelRunner, snapshot: Snapshot, splits: Splits, seed: int
) -> Mapping[str, tuple[float, float]]:
    """Return what the dense layers read, over some training rows; nothing for other encoders."""
    if not runner.model.reads_text:
        return {}
    rows = np.random.default_rng(seed).permutation(splits.train)[:CALIBRATION_ROWS]
    tokens = runner.tokenizer.encode(*snapshot.texts(np.sort(rows)))
    return calibrate_activations(runner.model, tokens)


def _drift(
    run: Run, labels: npt.NDArray[Any], exact_logits: FloatArray, fast_logits: FloatArray
) -> Drift:
    """Compare calibrated scores."""
    calibrator = Calibrator.from_json((run.path / CALIBRATION_FILE).read_text(encoding="utf-8"))
    thresholds = Thresholds.from_json((run.path / THRESHOLDS_FILE).read_text(encoding="utf-8"))
    exact, fast = calibrator.apply(exact_logits), calibrator.apply(fast_logits)
    tiers = [np.asarray(thresholds.tiers_of(scores)) for scores in (exact, fast)]
    auroc = [
        float(classification_metrics(labels, scores, 0.5)["auroc"]) for scores in (exact, fast)
    ]
    return Drift(
        max_probability_change=float(np.abs(fast - exact).max()),
        auroc_change=auroc[1] - auroc[0],
        tier_flips=float(np.mean(tiers[0] != tiers[1])),
    )


def _rounded(facts: dict[str, float]) -> dict[str, float | None]:
    """Return numbers for people, with None for what is not known."""
    return {
        name: float(f"{value:.3g}") if np.isfinite(value) else None for name, value in facts.items()
    }
