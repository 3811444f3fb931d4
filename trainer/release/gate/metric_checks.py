"""Checks of what a bundle's ``metrics.json`` says: the recipe, tested out of time.

The numbers are of the fit that did not know the test's labels. They are a claim of the bundle:
``shipped_checks`` looks at the bundle itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from trainer.config import GateConfig
from trainer.evaluate import BASELINE_TITLES
from trainer.evaluate.metrics import NUM_CALIBRATION_BINS
from trainer.release.gate.checks import GateCheck, at_least, at_most, failed, number, worst

OWN_BOUNDS = ("base_rate", "recency")
"""Baselines whose AUROC or Brier score has a bound of its own."""


def metric_checks(metrics: Mapping[str, Any], gate: GateConfig) -> list[GateCheck]:
    """Judge the test numbers: against chance, baselines, the churn rate, and by segment.

    A segment of the test rows must not be ranked worse than chance, nor be given probabilities
    that are much further off than everybody's; segments too small to be measured pass.

    Args:
        metrics: Content of ``metrics.json``.
        gate: The bounds.
    """
    try:
        return [
            *_baseline_checks(metrics, gate),
            *_calibration_checks(metrics, gate),
            *_segment_checks(metrics.get("slices") or {}, gate),
        ]
    except (KeyError, TypeError, AttributeError) as error:
        why = f"metrics.json has no test numbers ({type(error).__name__}: {error})"
        return [failed("test_auroc", f"{why}; train the model with `churn-train run`")]


def chance_error(brier_score: float, num_rows: float) -> float:
    """Return the calibration error that a calibrated model shows by chance.

    Each of the bins misses its churn rate by about ``sqrt(2 p (1 - p) / (pi n))``.

    Args:
        brier_score: Mean of ``p (1 - p)`` where the model is calibrated.
        num_rows: Rows of all bins.
    """
    if not num_rows > 0 or math.isnan(brier_score):
        return math.nan
    return math.sqrt(2.0 * brier_score * NUM_CALIBRATION_BINS / (math.pi * num_rows))


def _baseline_checks(metrics: Mapping[str, Any], gate: GateConfig) -> list[GateCheck]:
    """Compare with chance, and with each baseline on the same test rows."""
    test = metrics["test"]
    model = test[metrics["model"]]
    differences = {
        name: found
        for name, found in (metrics.get("differences") or {}).items()
        if name in BASELINE_TITLES and name in test
    }
    auroc, high = (number(model["auroc"][name]) for name in ("value", "high"))
    if math.isnan(auroc) or math.isnan(high):
        raise KeyError("auroc")
    checks = [
        at_least(
            "test_auroc",
            high,
            gate.min_auroc,
            f"AUROC {auroc:.3f}, at best",
            {"auroc": model["auroc"]},
        )
    ]
    if "recency" in differences:
        theirs = number(test["recency"]["auroc"]["value"])
        checks.append(
            at_least(
                "test_recency",
                number(differences["recency"]["auroc"]["high"]),
                -gate.max_recency_deficit,
                f"AUROC {auroc:.3f} against {theirs:.3f} of the recency rule, a gain of at best",
                {"difference": differences["recency"]["auroc"]},
            )
        )
    if "base_rate" in differences:
        mine, theirs = (
            number(table["brier_score"]["value"]) for table in (model, test["base_rate"])
        )
        checks.append(
            at_least(
                "test_base_rate",
                number(differences["base_rate"]["brier_score"]["high"]),
                -gate.max_brier_excess,
                f"Brier score {mine:.3f} against {theirs:.3f} of the base rate for everyone, a "
                "gain of at best",
                {"difference": differences["base_rate"]["brier_score"]},
            )
        )
    others = {name: found for name, found in differences.items() if name not in OWN_BOUNDS}
    for metric, title, table, bound in (
        ("auroc", "AUROC", others, gate.max_baseline_deficit),
        ("log_loss", "log loss", differences, gate.max_baseline_log_loss_excess),
    ):
        highs = {
            name: number(found[metric]["high"]) for name, found in table.items() if metric in found
        }
        rival = worst(highs, 1.0)
        if rival is None:
            continue
        checks.append(
            at_least(
                f"test_baselines_{metric}",
                highs[rival],
                -bound,
                f"{title} against the hardest baseline, {rival}, a gain of at best",
                {"baseline": rival, "differences": {name: table[name][metric] for name in highs}},
            )
        )
    return checks


def _calibration_checks(metrics: Mapping[str, Any], gate: GateConfig) -> list[GateCheck]:
    """Compare mean probability and churn rate, and look for error inside the bins."""
    checks = []
    everybody = ((metrics.get("slices") or {}).get("all") or {}).get("metrics") or {}
    gap = everybody.get("calibration_gap")
    if gap is not None:
        checks.append(
            at_most(
                "test_calibration_gap",
                _kind_badness("calibration_gap", gap),
                gate.max_calibration_gap,
                f"mean probability minus churn rate {number(gap['value']):+.3f}, off by at least",
                {"gap": gap},
            )
        )
    model = metrics["test"][metrics["model"]]
    error = model.get("expected_calibration_error")
    rows = ((metrics.get("splits") or {}).get("test") or {}).get("rows")
    if error is not None and rows:
        found = number(error["value"])
        chance = chance_error(number(model["brier_score"]["value"]), float(rows))
        checks.append(calibration_error_check("test", found, chance, gate))
    return checks


def calibration_error_check(kind: str, error: float, chance: float, gate: GateConfig) -> GateCheck:
    """Return the check of the expected calibration error.

    Args:
        kind: Beginning of the check's name.
        error: Expected calibration error.
        chance: What a calibrated model shows on as many rows.
        gate: The bounds.
    """
    return at_most(
        f"{kind}_calibration_error",
        max(error - chance, 0.0) if not math.isnan(error - chance) else math.nan,
        gate.max_calibration_error,
        f"calibration error {error:.3f}, of which chance explains {chance:.3f}, leaves",
        {"expected_calibration_error": error, "by_chance": chance},
    )


def _segment_checks(slices: Mapping[str, Any], gate: GateConfig) -> list[GateCheck]:
    """Compare the worst segment in each respect with its floor."""
    measured = [
        (f"segment {segment['segment']!r} of {name} ({segment['users']:,} users)", metrics)
        for name, division in slices.get("by", {}).items()
        for segment in division["segments"]
        if (metrics := segment.get("metrics")) is not None
    ]
    checks = []
    for name, metric, bound, words in (
        ("segment_auroc", "auroc", gate.min_slice_auroc, "AUROC"),
        (
            "segment_auroc_deficit",
            "auroc_against_all",
            gate.max_slice_auroc_deficit,
            "AUROC below everybody's",
        ),
        (
            "segment_calibration_gap",
            "calibration_gap_against_all",
            gate.max_slice_calibration_gap,
            "mean probability off by more than everybody's",
        ),
    ):
        badness = {who: _kind_badness(metric, found[metric]) for who, found in measured}
        who = worst(badness, -1.0)
        if bound is None or who is None:
            continue
        compare, sign = (at_least, -1.0) if metric == "auroc" else (at_most, 1.0)
        numbers = dict(measured)[who][metric]
        checks.append(
            compare(
                name,
                sign * badness[who],
                bound,
                f"{who}: {words} at the kind end of its interval",
                {"segment": who, metric: numbers},
            )
        )
    return checks


def _kind_badness(metric: str, interval: Mapping[str, Any]) -> float:
    """Return how bad a number is at the kind end of its interval; NaN where undefined."""
    low, high = number(interval["low"]), number(interval["high"])
    if metric.startswith("calibration_gap"):
        return max(low, -high, 0.0) if not math.isnan(low) else low
    return -high
