"""The sanity gate of ``run``: a model that is clearly no good is packaged but not promoted."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from trainer.config import GateConfig
from trainer.errors import QualityGateError

OVERRIDE_HINT = (
    "look at the report, then change the data or settings; `churn-train promote` promotes the "
    "bundle all the same"
)


def check_gate(metrics: Mapping[str, Any], gate: GateConfig) -> dict[str, float]:
    """Refuse a model that ranks like chance, or clearly worse than recency or a constant.

    A segment of the test rows must not be ranked worse than chance, nor be given probabilities
    that are much further off than everybody's; segments too small to be measured pass.

    Args:
        metrics: Content of ``metrics.json``.
        gate: The bounds.

    Returns:
        The compared numbers.

    Raises:
        QualityGateError: Names every bound that is not met.
    """
    test = metrics["test"]
    model = test[metrics["model"]]
    facts = {
        "auroc": _number(model["auroc"]["value"]),
        "auroc_high": _number(model["auroc"]["high"]),
    }
    problems = []
    if facts["auroc_high"] < gate.min_auroc:
        problems.append(
            f"AUROC {facts['auroc']:.3f}, at best {facts['auroc_high']:.3f}; "
            f"at least {gate.min_auroc:.3f} is needed"
        )
    if "recency" in test:
        facts["recency_auroc"] = _number(test["recency"]["auroc"]["value"])
        best = facts["recency_gain_high"] = _gain_high(metrics, "recency", "auroc")
        if best < -gate.max_recency_deficit:
            problems.append(
                f"AUROC {facts['auroc']:.3f} against {facts['recency_auroc']:.3f} of the recency "
                f"rule, a difference of at best {best:+.3f}; at least "
                f"{-gate.max_recency_deficit:+.3f} is needed"
            )
    if "base_rate" in test:
        facts["brier_score"] = _number(model["brier_score"]["value"])
        facts["base_rate_brier_score"] = _number(test["base_rate"]["brier_score"]["value"])
        best = facts["base_rate_gain_high"] = _gain_high(metrics, "base_rate", "brier_score")
        if best < -gate.max_brier_excess:
            problems.append(
                f"Brier score {facts['brier_score']:.3f} against "
                f"{facts['base_rate_brier_score']:.3f} of the base rate for everyone, a gain of at "
                f"best {best:+.3f}; at least {-gate.max_brier_excess:+.3f} is needed"
            )
    problems += _slice_problems(metrics.get("slices") or {}, gate, facts)
    if problems:
        raise QualityGateError(
            f"not promoted, the model is not good enough: {'; '.join(problems)}. "
            f"Next: {OVERRIDE_HINT}",
            facts=facts,
        )
    return facts


def _slice_problems(
    slices: Mapping[str, Any], gate: GateConfig, facts: dict[str, float]
) -> list[str]:
    """Return what is wrong with the worst segment in each respect; its numbers go into `facts`."""
    measured = [
        (f"segment {segment['segment']!r} of {name} ({segment['users']:,} users)", metrics)
        for name, division in slices.get("by", {}).items()
        for segment in division["segments"]
        if (metrics := segment.get("metrics")) is not None
    ]
    rules = (
        ("auroc", gate.min_slice_auroc, "AUROC", "at least"),
        (
            "auroc_against_all",
            gate.max_slice_auroc_deficit,
            "AUROC below everybody's, by",
            "at most",
        ),
        (
            "calibration_gap_against_all",
            gate.max_slice_calibration_gap,
            "mean probability off by more than everybody's, by",
            "at most",
        ),
    )
    problems = []
    for metric, bound, words, side in rules:
        badness = {who: _kind_badness(metric, found[metric]) for who, found in measured}
        known = {who: value for who, value in badness.items() if not math.isnan(value)}
        if bound is None or not known:
            continue
        who = max(known, key=lambda name: known[name])
        sign = -1.0 if metric == "auroc" else 1.0
        facts[f"worst_slice_{metric}"] = sign * known[who]
        if known[who] > sign * bound:
            problems.append(
                f"{who}: {words} {sign * known[who]:.3f} at the kind end of its interval; "
                f"{side} {bound:.3f} is allowed"
            )
    return problems


def _kind_badness(metric: str, interval: Mapping[str, float | None]) -> float:
    """Return how bad a segment is at the kind end of its interval; NaN where undefined."""
    low, high = _number(interval["low"]), _number(interval["high"])
    if metric == "calibration_gap_against_all":
        return max(low, -high, 0.0) if not math.isnan(low) else low
    return -high


def _gain_high(metrics: Mapping[str, Any], baseline: str, metric: str) -> float:
    """Return the upper end of the paired interval by which the model beats a baseline.

    A small test split cannot tell small differences: only what even the kind end of the
    interval shows to be worse is refused.
    """
    return _number(metrics["differences"][baseline][metric]["high"])


def _number(value: float | None) -> float:
    """Return a number, NaN for an undefined one; NaN breaks no bound."""
    return float("nan") if value is None else float(value)
