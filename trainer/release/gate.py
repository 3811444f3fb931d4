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
        lowest = facts["recency_auroc"] - gate.max_recency_deficit
        if facts["auroc"] < lowest:
            problems.append(
                f"AUROC {facts['auroc']:.3f} against {facts['recency_auroc']:.3f} of the recency "
                f"rule; at least {lowest:.3f} is needed"
            )
    if "base_rate" in test:
        facts["brier_score"] = _number(model["brier_score"]["value"])
        facts["base_rate_brier_score"] = _number(test["base_rate"]["brier_score"]["value"])
        highest = facts["base_rate_brier_score"] + gate.max_brier_excess
        if facts["brier_score"] > highest:
            problems.append(
                f"Brier score {facts['brier_score']:.3f} against "
                f"{facts['base_rate_brier_score']:.3f} of the base rate for everyone; at most "
                f"{highest:.3f} is allowed"
            )
    if problems:
        raise QualityGateError(
            f"not promoted, the model is no better than simple rules: {'; '.join(problems)}. "
            f"Next: {OVERRIDE_HINT}",
            facts=facts,
        )
    return facts


def _number(value: float | None) -> float:
    """Return a number, NaN for an undefined one; NaN breaks no bound."""
    return float("nan") if value is None else float(value)
