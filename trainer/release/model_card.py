"""The model card: what a person must know before relying on a bundle, from measured facts."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Any

from churn_udf.model.precision import Precision
from trainer.data.snapshot import Snapshot
from trainer.evaluate import BASELINE_TITLES, METRIC_NAMES
from trainer.judgement import model_title
from trainer.report.ensemble import base_rate_text, weights_text

TEMPLATE_FILE = Path(__file__).parent / "templates" / "model_card.md"
LOWEST_GOOD_AUROC = 0.6


def render_model_card(
    *,
    training: Mapping[str, Any],
    versions: Mapping[str, str],
    metrics: Mapping[str, Any],
    snapshot: Snapshot,
    precision: Precision | None,
) -> str:
    """Return ``MODEL_CARD.md``.

    Args:
        training: The manifest's training facts.
        versions: Package versions.
        metrics: Content of ``metrics.json``.
        snapshot: What it was trained on.
        precision: What the encoder computes in; None where none scores.
    """
    settings = snapshot.model_settings
    choice = metrics["threshold"]
    qualifying = ", ".join(settings.qualifying_event_types)
    return _template().substitute(
        title=model_title(metrics["model"], str(training.get("encoder", "")), training["weights"]),
        reads=_reads(training["weights"]),
        snapshot_id=snapshot.snapshot_id,
        run_id=training["run_id"],
        seed=training["seed"],
        qualifying=qualifying,
        observation_days=settings.observation_days,
        eligibility_days=settings.eligibility_days,
        gap_days=settings.gap_days,
        horizon_days=settings.horizon_days,
        num_features=len(snapshot.features),
        parameters=f"{training['parameters']:,}" if "parameters" in training else "unknown",
        vocabulary=f"{training['vocabulary_size']:,}"
        if "vocabulary_size" in training
        else "unknown",
        ensemble=_ensemble(metrics["ensemble"]),
        apart=_apart(metrics),
        fits=_fits(metrics, str(training["refit"])) + _starts(training),
        base_rate=base_rate_text(
            metrics["calibration"]["base_rate_kind"], metrics["shipped_calibration"]["offset"]
        ),
        splits_table=_splits_table(metrics["splits"]),
        metrics_table=_metrics_table(metrics),
        confidence=f"{metrics['confidence']:.0%}",
        comparison=_comparison(metrics),
        worst_segment=_worst_segment(metrics.get("slices") or {}),
        calibration=f"{metrics['calibration']['chosen']} ({metrics['calibration']['reason']})",
        precision=_precision(precision),
        threshold=f"{choice['threshold']:.3f}",
        threshold_reason=choice["reason"],
        limits=_limits(metrics),
        versions="\n".join(f"- {name} {version}" for name, version in sorted(versions.items())),
    )


@functools.lru_cache(maxsize=1)
def _template() -> Template:
    """Return the card's template."""
    return Template(TEMPLATE_FILE.read_text(encoding="utf-8"))


def _precision(precision: Precision | None) -> str:
    """Say what the encoder computes in and what that changes."""
    if precision is None:
        return "Computed in fp64 by the members that read features alone"
    parts = []
    for mode, found in precision.check["modes"].items():
        if "reason" in found:
            parts.append(f"{mode} not tried ({found['reason']})")
            continue
        auroc = found["auroc_change"]
        parts.append(
            f"{mode} {'kept' if found['is_within'] else 'broke'} the bounds: probability by at "
            f"most {found['max_probability_change']:.2g}, AUROC by "
            f"{'an unknown amount' if auroc is None else format(auroc, '+.2g')}, tiers of "
            f"{found['tier_flips']:.2%}"
        )
    return (
        f"The encoder computes in {precision.mode} where the hardware can, otherwise in "
        f"{precision.fallback}. Changes against fp32 on {precision.check['rows']:,} validation "
        f"rows: {'; '.join(parts)}"
    )


def _reads(weights: Mapping[str, float]) -> str:
    """Say which input is read by what has a weight."""
    return "text and" if "bert" in weights else "no text,"


def _apart(metrics: Mapping[str, Any]) -> str:
    """Say how the splits are kept apart."""
    if metrics["test_mode"] == "by_user":
        return "The history was too short to part the splits by time: they differ by users alone."
    if metrics["valid_mode"] == "by_user":
        return (
            "Training and validation differ by users alone; every label of both was known before "
            "the first test cutoff."
        )
    return "Every label of one split was known before the first cutoff of the next."


def _ensemble(table: Mapping[str, Any]) -> str:
    """Say what scores and how the kinds stood on validation rows."""
    chosen = table["chosen"]
    losses = ", ".join(f"{kind} {loss:.4f}" for kind, loss in table["valid_log_loss"].items())
    return (
        f"`{chosen}` ({weights_text(table['weights'][chosen])}), {table['reason']}; "
        f"validation log loss at the best intercept: {losses}"
    )


def _fits(metrics: Mapping[str, Any], refit: str) -> str:
    """Say which labels what was tested and what scores have learned from."""

    def told(facts: Mapping[str, Any]) -> str:
        return f"{facts['rows']:,} rows, cutoffs to {facts['cutoffs'][-1]}"

    train, fits = metrics["splits"]["train"], metrics["fits"]
    if refit == "none":
        return f"The test judged what scores: {told(train)}."
    if refit == "test" or fits["final"] == fits["refit"]:
        return f"Chosen on {told(train)}; fitted again and tested on {told(fits['refit'])}."
    return (
        f"Chosen on {told(train)}; fitted again for the test on {told(fits['refit'])}; what scores "
        f"was fitted once more on {told(fits['final'])}, and is itself untested out of time."
    )


def _starts(training: Mapping[str, Any]) -> str:
    """Say from what the fits of the neural model started, where it was not from nothing."""
    starts = training.get("starts")
    if not starts:
        return ""
    told = "; ".join(
        f"{name} {'' if text.startswith('anew') else 'from the weights of '}{text}"
        for name, text in starts.items()
    )
    return f" Starts of the neural fits: {told}."


def _splits_table(splits: Mapping[str, Any]) -> str:
    """Return a table of cutoffs, rows and base rate per split."""
    lines = ["| split | cutoffs | rows | users | churned |", "|---|---|---|---|---|"]
    for name, facts in splits.items():
        dates = facts["cutoffs"]
        span = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]} ({len(dates)})"
        lines.append(
            f"| {name} | {span} | {facts['rows']:,} | {facts['users']:,} "
            f"| {facts['base_rate']:.1%} |"
        )
    return "\n".join(lines)


def _metrics_table(metrics: Mapping[str, Any]) -> str:
    """Return a table of the test metrics, models side by side."""
    models = list(metrics["test"])
    lines = ["| metric | " + " | ".join(models) + " |", "|---" * (len(models) + 1) + "|"]
    for name in METRIC_NAMES:
        cells = [_cell(metrics["test"][model][name]) for model in models]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(interval: Mapping[str, float | None]) -> str:
    """Return a value with its interval."""
    value, low, high = (interval[key] for key in ("value", "low", "high"))
    if value is None:
        return "undefined"
    return f"{value:.3f}" if low is None else f"{value:.3f} ({low:.3f} to {high:.3f})"


def _comparison(metrics: Mapping[str, Any]) -> str:
    """Say in one sentence how the model stands against its best baseline."""
    best = metrics.get("best_baseline")
    if best is None:
        return "No baseline was fitted beside it."
    if metrics["model"] == "gbm" and best == "lightgbm":
        return f"The model is its own best baseline, {BASELINE_TITLES[best]}."
    gap = metrics["differences"][best]["auroc"]
    if gap["value"] is None or gap["low"] is None:
        return f"The best baseline is {BASELINE_TITLES[best]}."
    verdict = "no clear difference"
    if gap["low"] > 0:
        verdict = "the model is better"
    elif gap["high"] < 0:
        verdict = "the baseline is better"
    return (
        f"Against the best baseline, {BASELINE_TITLES[best]}, the AUROC differs by "
        f"{gap['value']:+.3f} ({gap['low']:+.3f} to {gap['high']:+.3f}): {verdict}."
    )


def _worst_segment(slices: Mapping[str, Any]) -> str:
    """Say in one line for whom the model works least."""
    worst = slices.get("worst", {})
    if not worst:
        return "Metrics by segment: none was large enough to be measured."
    parts = []
    if "auroc" in worst:
        one = worst["auroc"]
        parts.append(f"AUROC {_cell(one)} where {one['slice']} is {one['segment']}")
    if "calibration_gap" in worst:
        one = worst["calibration_gap"]
        parts.append(
            f"mean probability minus churn rate, against everybody's, {_cell(one)} where "
            f"{one['slice']} is {one['segment']}"
        )
    return f"Worst segment: {'; '.join(parts)}."


def _limits(metrics: Mapping[str, Any]) -> str:
    """Return what the numbers cannot promise, as list items."""
    test = metrics["splits"]["test"]
    auroc = metrics["test"][metrics["model"]]["auroc"]["value"]
    lines = [
        f"- Measured on {test['rows']:,} rows of {len(test['cutoffs'])} cutoff(s); another season "
        "or another population can differ.",
        "- It tells who is likely to leave, not who can be kept: it has seen no treatment.",
        "- It is bound to the windows above; scoring refuses data built with others.",
    ]
    if metrics["valid_mode"] == "by_user":
        lines.append(
            "- The history was too short for a validation cutoff of its own, so calibration has "
            "not seen time pass."
        )
    if auroc is not None and auroc < LOWEST_GOOD_AUROC:
        lines.append(f"- It ranks weakly (AUROC {auroc:.3f}): use it for trends, not for people.")
    return "\n".join(lines)
