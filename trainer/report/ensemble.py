"""The report's account of what scores: kind and weights, fits, and the base rate it expects."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from trainer.report.data import ReportData

MEMBER_TITLES = {
    "bert": "BERT",
    "gbm": "trees",
    "logistic": "logistic",
    "rfm_logistic": "RFM",
    "bg_nbd": "BG/NBD",
}
EXAMPLE_PROBABILITY = 0.3
_NO_CHANGE = 5e-4


def weights_text(weights: Mapping[str, float]) -> str:
    """Write members with their weights, largest first."""
    ranked = sorted(weights.items(), key=lambda pair: (-pair[1], pair[0]))
    return ", ".join(f"{MEMBER_TITLES[name]} {weight:.2f}" for name, weight in ranked)


def ensemble_rows(run: ReportData) -> list[dict[str, Any]]:
    """One row per kind that was possible, with its validation log loss, the lowest first."""
    losses: Mapping[str, float] = run.ensemble.get("valid_log_loss", {})
    return [
        {
            "title": run.title_of(kind),
            "weights": weights_text(run.ensemble["weights"][kind]) if kind == "stack" else "",
            "loss": f"{loss:.4f}",
            "is_chosen": kind == run.ensemble["chosen"],
        }
        for kind, loss in sorted(losses.items(), key=lambda pair: pair[1])
    ]


def fits_text(run: ReportData) -> str:
    """Say which of the fits the test numbers are of."""
    if len(run.fits) < 2 or run.fits[-1].is_judged:
        return "What scores is the very model that the test judged."
    first_test = min((min(one.cutoffs) for one in run.splits if one.name == "test"), default="")
    known = ", those of the test among them" if run.fits[-1].last_cutoff >= first_test else ""
    return (
        f"What scores is the same recipe fitted again on the newest labels{known}. The test "
        "numbers are of the fit before it; nothing tests the last one out of time."
    )


def base_rate_text(kind: str, offset: float) -> str:
    """Say what an offset of the log odds does, in probabilities.

    Args:
        kind: Of ``BASE_RATE_KINDS``.
        offset: Added to the log odds of every calibrated probability.
    """
    expected = {
        "newest": "that of the newest labelled rows",
        "shrunk": "halfway between the newest labelled rows and all labels learned from",
        "em": "what the scores without labels imply",
    }[kind]
    start = math.log(EXAMPLE_PROBABILITY / (1.0 - EXAMPLE_PROBABILITY))
    moved = 1.0 / (1.0 + math.exp(-start - offset))
    effect = "so nothing is shifted"
    if abs(offset) >= _NO_CHANGE:
        effect = (
            f"so log odds are shifted by {offset:+.3f}: {EXAMPLE_PROBABILITY:.1%} becomes "
            f"{moved:.1%}"
        )
    return f"Churn rate expected ({kind}): {expected}, {effect}."
