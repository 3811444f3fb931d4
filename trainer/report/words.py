"""The report's sentences: what the numbers mean, in plain words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trainer.evaluate.curves import Confusion, confusion
from trainer.report.data import IntervalLike, ReportData

#: Stands where a number is undefined.
MISSING = "\N{EN DASH}"
METRIC_TITLES = {
    "auroc": ("AUROC", "chance that a churner scores higher than a stayer; .5 is chance"),
    "average_precision": (
        "Average precision",
        "area under precision and recall; chance is the base rate",
    ),
    "log_loss": ("Log loss", "surprise at what happened; lower is better"),
    "brier_score": ("Brier score", "squared error of the probability; lower is better"),
    "expected_calibration_error": (
        "Calibration error",
        "distance between what was said and what happened; lower is better",
    ),
    "lift_at_5pct": ("Lift, top 5 %", "churn rate among the top 5 %, over the base rate"),
    "lift_at_10pct": ("Lift, top 10 %", "churn rate among the top 10 %, over the base rate"),
    "lift_at_20pct": ("Lift, top 20 %", "churn rate among the top 20 %, over the base rate"),
    "precision": ("Precision", "share of the flagged who churned"),
    "recall": ("Recall", "share of the churners who were flagged"),
    "f1": ("F1", "harmonic mean of precision and recall"),
    "accuracy": ("Accuracy", "share of right flags; misleading when few churn"),
    "base_rate": ("Base rate", "share of all test customers who churned"),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """Whether the model beats its baselines."""

    level: str
    """good, even or bad; unknown when it cannot be said."""
    headline: str
    text: str


def verdict(run: ReportData) -> Verdict:
    """Judge the model against the baseline with the highest AUROC, by the paired difference."""
    ranked = [
        name
        for name in run.differences
        if name not in run.alternatives and math.isfinite(float(run.metrics[name]["auroc"][0]))
    ]
    model = run.title_of(run.model_name)
    if not ranked:
        return Verdict(
            level="unknown",
            headline=f"{model} was compared with no baseline",
            text="Without a baseline on the same customers a score cannot be judged.",
        )
    best = max(ranked, key=lambda name: float(run.metrics[name]["auroc"][0]))
    value, low, high = (100.0 * float(number) for number in run.differences[best]["auroc"])
    against = f"the best baseline, {run.title_of(best)}"
    span = (
        f"{value:+.1f} points of AUROC ({run.confidence_text} interval {low:+.1f} to {high:+.1f})"
    )
    if not (math.isfinite(low) and math.isfinite(high)):
        level, headline = "unknown", f"{model} cannot be told from {against}: too little data"
    elif low > 0.0:
        level, headline = "good", f"{model} ranks customers better than {against}"
    elif high < 0.0:
        level, headline = "bad", f"{model} ranks customers worse than {against}"
    else:
        level, headline = "even", f"{model} and {against} rank customers about equally well"
    endings = {
        "good": "the interval lies wholly above zero.",
        "bad": "the interval lies wholly below zero. Do not promote this model.",
        "even": "the interval includes zero, so the difference may be chance.",
        "unknown": "no interval could be computed.",
    }
    return Verdict(level=level, headline=headline, text=f"Difference: {span}; {endings[level]}")


def summary_sentences(run: ReportData) -> list[str]:
    """Say what the model does on the test customers, without jargon."""
    metrics = run.metrics[run.model_name]
    labels = np.asarray(run.labels, dtype=np.float64)
    counts = confusion(run.labels, run.probabilities[run.model_name], run.threshold)
    flagged = counts.true_positive + counts.false_positive
    churned = counts.true_positive + counts.false_negative
    sentences = []
    auroc = [float(number) for number in metrics["auroc"]]
    if math.isfinite(auroc[0]):
        sentences.append(
            f"Of one customer who left and one who stayed, it gives the one who left the higher "
            f"risk {auroc[0]:.1%} of the time ({run.confidence_text} interval {auroc[1]:.1%} to "
            f"{auroc[2]:.1%})."
        )
    apart = "of customers that the judged fit has not learned from"
    if run.is_test_later:
        apart = "from a later time than any label that the judged fit learned from"
    sentences.append(
        f"The test holds {labels.size:,} examples {apart}; {churned:,} of them "
        f"({labels.mean():.1%}) churned."
    )
    if flagged and churned:
        sentences.append(
            f"Flagging everyone from a probability of {run.threshold:.1%} marks {flagged:,} "
            f"({flagged / labels.size:.1%}), finds {counts.true_positive / churned:.1%} of the "
            f"churners, and is right about {counts.true_positive / flagged:.1%} of those it marks."
        )
    else:
        sentences.append(
            f"From a probability of {run.threshold:.1%} on it marks {flagged:,} customers."
        )
    lift = float(metrics["lift_at_10pct"][0])
    if math.isfinite(lift):
        sentences.append(
            f"The tenth most at risk churn {lift:.1f} times as often as the average customer."
        )
    return sentences


def tier_rows(run: ReportData) -> list[dict[str, str]]:
    """Count the test customers of each tier and what became of them."""
    labels = np.asarray(run.labels, dtype=np.float64)
    scores = np.asarray(run.probabilities[run.model_name], dtype=np.float64)
    rows = []
    taken = np.zeros(labels.size, dtype=bool)
    for tier in run.tiers:
        low = float(tier["min_probability"])
        inside = (scores >= low) & ~taken
        taken |= inside
        count = int(inside.sum())
        rows.append(
            {
                "name": str(tier["name"]),
                "from": f"{low:.1%}",
                "count": f"{count:,}",
                "share": f"{count / labels.size:.1%}",
                "said": f"{scores[inside].mean():.1%}" if count else MISSING,
                "happened": f"{labels[inside].mean():.1%}" if count else MISSING,
            }
        )
    return rows


def confusion_cells(run: ReportData) -> dict[str, dict[str, str]]:
    """Write the confusion matrix: count, share of all, and a shade in [0, 1]."""
    counts = confusion(run.labels, run.probabilities[run.model_name], run.threshold)
    total = sum(counts)
    words = {
        "true_positive": "flagged, and churned",
        "false_positive": "flagged, but stayed",
        "false_negative": "not flagged, but churned",
        "true_negative": "not flagged, and stayed",
    }
    return {
        name: {
            "count": f"{getattr(counts, name):,}",
            "share": f"{getattr(counts, name) / total:.1%}",
            "shade": f"{0.06 + 0.5 * getattr(counts, name) / total:.3f}",
            "words": words[name],
        }
        for name in Confusion._fields
    }


def interval_text(
    interval: IntervalLike, *, signed: bool = False, decimals: int = 3
) -> tuple[str, str]:
    """Write a value and its interval; a dash where undefined."""
    sign = "+" if signed else ""
    form = f"{sign}.{decimals}f"
    numbers: Sequence[float] = [float(number) for number in interval]
    value = f"{numbers[0]:{form}}" if math.isfinite(numbers[0]) else MISSING
    if len(numbers) < 3 or not all(math.isfinite(number) for number in numbers[1:3]):
        return value, ""
    return value, f"{numbers[1]:{form}} to {numbers[2]:{form}}"


def fact_text(value: object) -> str:
    """Write a fact: thousands grouped, lists joined, None as a dash."""
    if value is None:
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{key}: {fact_text(one)}" for key, one in value.items()) or MISSING
    if isinstance(value, (list, tuple)):
        return ", ".join(fact_text(one) for one in value) or MISSING
    return str(value)
