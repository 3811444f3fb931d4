"""Results as text for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainer.retraining import RetrainingPlan

MAX_WIDTH = 110
METRIC_WIDTH = 28


def metric_table(metrics: Mapping[str, Any]) -> str:
    """Return every test metric of the model and its baselines, with intervals.

    Args:
        metrics: Content of ``metrics.json``.
    """
    test = metrics["test"]
    names = [metrics["model"], *(name for name in test if name != metrics["model"])]
    cells = {
        name: {metric: format_interval(value) for metric, value in test[name].items()}
        for name in names
    }
    widths = {
        name: max(len(name), *(len(cell) for cell in column.values()))
        for name, column in cells.items()
    }
    blocks = []
    for block in _fit_columns(names, widths):
        header = "test metric".ljust(METRIC_WIDTH)
        lines = [header + "  ".join(name.rjust(widths[name]) for name in block)]
        for metric in test[names[0]]:
            row = "  ".join(cells[name][metric].rjust(widths[name]) for name in block)
            lines.append(metric.ljust(METRIC_WIDTH) + row)
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def split_table(splits: Mapping[str, Any]) -> str:
    """Return rows, users, base rate and cutoffs of each split.

    Args:
        splits: The ``splits`` of ``splits.json``.
    """
    lines = [f"{'split':<8}{'rows':>10}{'users':>10}{'churned':>10}  cutoffs"]
    for name, facts in splits.items():
        dates = facts["cutoffs"]
        span = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]} ({len(dates)})"
        lines.append(
            f"{name:<8}{facts['rows']:>10,}{facts['users']:>10,}{facts['base_rate']:>10.1%}  {span}"
        )
    return "\n".join(lines)


def retraining_table(plan: RetrainingPlan) -> str:
    """Return every check of a retraining plan with value and limit, and the verdict.

    Args:
        plan: Of ``trainer.retraining.plan``.
    """
    names = [name for check in plan.checks for name in (check.name, "check")]
    width = 2 + max(map(len, names))
    lines = [
        f"{'check':<{width}}{'measure':<20}{'value':>10}{'limit':>10}  {'due':<4} what was found"
    ]
    for check in plan.checks:
        for measure in check.measures:
            value = "-" if measure.value is None else _short(measure.value)
            limit = "-" if measure.limit is None else _short(measure.limit)
            due = "yes" if measure.is_due else "no"
            lines.append(
                f"{check.name:<{width}}{measure.name:<20}{value:>10}{limit:>10}  {due:<4} "
                f"{measure.message}"
            )
    return "\n".join([*lines, plan.sentence])


def _short(value: float) -> str:
    """Return a whole number as such, any other with three digits."""
    return f"{value:,}" if isinstance(value, int) else f"{value:.3f}"


def backtest_table(document: Mapping[str, Any]) -> str:
    """Return quality and calibration of the model in charge at each tested cutoff.

    Args:
        document: Of ``trainer.backtest.backtest``.
    """
    lines = [
        f"{'cutoff':<12}{'rows':>8}{'churned':>9}{'said':>7}{'age':>6}{'AUROC':>8}{'log loss':>10}"
        f"{'ECE':>7}  against the best baseline (AUROC)"
    ]
    for one in document["cutoffs"]:
        aged = one["in_charge"]
        metrics = aged["metrics"]
        against = ""
        if one["is_trained"]:
            best = one["best_baseline"]
            gap = one["differences"].get(one["model"], {}).get("auroc")
            against = f"{one['model']}, {best}: {gap['value']:+.3f}" if gap else str(one["model"])
            if gap and gap["low"] is not None:
                against += f" [{gap['low']:+.3f} {gap['high']:+.3f}]"
        lines.append(
            f"{one['cutoff']:<12}{one['rows']:>8,}{one['base_rate']:>9.1%}"
            f"{aged['mean_probability']:>7.1%}{aged['age_days']:>5}d{_number(metrics['auroc']):>8}"
            f"{_number(metrics['log_loss']):>10}"
            f"{_number(metrics['expected_calibration_error']):>7}  {against}".rstrip()
        )
    return "\n".join(lines)


def ageing_table(ages: Sequence[Mapping[str, Any]]) -> str:
    """Return how much a model loses with age against one trained at the tested cutoff.

    Args:
        ages: Of ``trainer.backtest.ageing``.
    """
    if not ages:
        return "no model was tested beside a fresher one: ageing is not known"
    lines = [f"{'age':>6}{'pairs':>7}{'AUROC lost':>12}{'log loss gained':>17}"]
    lines += [
        f"{one['age_days']:>5}d{one['pairs']:>7}{one['auroc_loss']:>+12.4f}"
        f"{one['log_loss_gain']:>+17.4f}"
        for one in ages
    ]
    return "\n".join(lines)


def _number(value: float | None) -> str:
    """Return three digits, or ``-`` for an undefined value."""
    return "-" if value is None or value != value else f"{value:.3f}"


def verdict(metrics: Mapping[str, Any]) -> str:
    """Say how the model stands against its best baseline."""
    best = metrics.get("best_baseline")
    if (metrics["model"], best) == ("gbm", "lightgbm"):
        return "the model is the best baseline itself: gradient boosting was chosen on validation"
    gap = metrics["differences"][best]["auroc"] if best else None
    if gap is None or gap["low"] is None:
        return "no baseline to compare with"
    return (
        f"AUROC against the best baseline ({best}): {gap['value']:+.3f} "
        f"[{gap['low']:+.3f} {gap['high']:+.3f}], positive means that the model is better"
    )


def format_interval(interval: Mapping[str, float | None]) -> str:
    """Return ``.837 [.819 .855]``, or ``-`` for an undefined value."""
    value, low, high = (interval[key] for key in ("value", "low", "high"))
    if value is None:
        return "-"
    if low is None or high is None:
        return f"{value:.3f}"
    return f"{value:.3f} [{low:.3f} {high:.3f}]"


def _fit_columns(names: Sequence[str], widths: Mapping[str, int]) -> list[list[str]]:
    """Distribute the columns over blocks that fit a terminal."""
    blocks: list[list[str]] = [[]]
    for name in names:
        used = METRIC_WIDTH + sum(widths[other] + 2 for other in blocks[-1])
        if blocks[-1] and used + widths[name] > MAX_WIDTH:
            blocks.append([])
        blocks[-1].append(name)
    return blocks
