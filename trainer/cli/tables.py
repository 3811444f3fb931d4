"""Results as text for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

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


def verdict(metrics: Mapping[str, Any]) -> str:
    """Say how the model stands against its best baseline."""
    best = metrics.get("best_baseline")
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
