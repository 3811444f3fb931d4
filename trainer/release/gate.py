"""The sanity gate of ``run``: a model that is clearly no good is packaged but not promoted."""

from __future__ import annotations

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
    if problems:
        raise QualityGateError(
            f"not promoted, the model is no better than simple rules: {'; '.join(problems)}. "
            f"Next: {OVERRIDE_HINT}",
            facts=facts,
        )
    return facts


def _gain_high(metrics: Mapping[str, Any], baseline: str, metric: str) -> float:
    """Return the upper end of the paired interval by which the model beats a baseline.

    A small test split cannot tell small differences: only what even the kind end of the
    interval shows to be worse is refused.
    """
    return _number(metrics["differences"][baseline][metric]["high"])


def _number(value: float | None) -> float:
    """Return a number, NaN for an undefined one; NaN breaks no bound."""
    return float("nan") if value is None else float(value)
