"""The charts of the report: which numbers go where, and what they mean in words."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from trainer.evaluate.curves import (
    MAX_POINTS,
    Curve,
    calibration_bins,
    gain_curve,
    lift_curve,
    precision_recall_curve,
    probability_histogram,
    roc_curve,
)
from trainer.report.data import ReportData
from trainer.report.svg import Axis, Chart

NUM_SERIES = 7  # colours in the page's CSS; more models than that reuse them


@dataclass(frozen=True, kw_only=True, slots=True)
class ChartView:
    """A finished chart with its words."""

    name: str
    """HTML id."""
    title: str
    caption: str
    """One or two plain sentences: how to read it."""
    svg: Markup
    legend: list[tuple[int, str]] = field(default_factory=list)
    """(colour number, text)."""


def curve_charts(run: ReportData) -> list[ChartView]:
    """Draw every chart that the test rows allow; with one class only, most have no meaning."""
    makers = (
        _roc_chart,
        _precision_recall_chart,
        _calibration_chart,
        _score_chart,
        _gain_chart,
        _lift_chart,
    )
    charts = [maker(run) for maker in makers]
    return [chart for chart in charts if chart is not None]


def comparison_chart(run: ReportData, metric: str, label: str) -> ChartView | None:
    """Draw one metric of every model as a point with its interval, best first."""
    found = {
        model: [float(number) for number in run.metrics[model][metric]]
        for model in run.probabilities
        if math.isfinite(float(run.metrics[model][metric][0]))
    }
    if not found:
        return None
    ordered = sorted(found, key=lambda model: -found[model][0])
    ends = [number for numbers in found.values() for number in numbers if math.isfinite(number)]
    pad = 0.08 * (max(ends) - min(ends)) + 0.005
    x = Axis(label=label, low=min(ends) - pad, high=max(ends) + pad, kind="number")
    y = Axis(label="", low=0.0, high=float(len(ordered)), kind="number")
    chart = Chart(
        title=f"{label} of the model and its baselines",
        description=", ".join(f"{run.title_of(name)} {found[name][0]:.3f}" for name in ordered),
        x=x,
        y=y,
        height=60 + 44 * len(ordered),
        left=12,
    )
    for place, model in enumerate(ordered):
        value, low, high = found[model]
        at = len(ordered) - place - 0.68
        tip = f"{run.title_of(model)}: {value:.3f} ({low:.3f} to {high:.3f})"
        span = (low, high) if math.isfinite(low) and math.isfinite(high) else None
        chart.dot((value, at), _series(run, model), tip, horizontal=span)
        chart.row_label(at, f"{run.title_of(model)}  {value:.3f}")
    return ChartView(
        name=f"compare-{metric.replace('_', '-')}",
        title=f"{label}, model beside baselines",
        caption=f"Dots are the values on the test customers, lines their {run.confidence_text} "
        "intervals. Overlapping lines settle nothing: see the paired differences.",
        svg=chart.svg(y_ticks=False),
    )


def history_charts(history: Sequence[Mapping[str, Any]]) -> list[ChartView]:
    """Draw the losses of each training stage, and its validation scores."""
    stages = list(dict.fromkeys(str(entry.get("stage", "training")) for entry in history))
    charts = []
    for number, stage in enumerate(stages):
        entries = [entry for entry in history if str(entry.get("stage", "training")) == stage]
        for part, is_shown in (("loss", _is_loss), ("score", _is_score)):
            chart = _history_chart(f"{part}-{number}", stage, part, entries, is_shown)
            if chart is not None:
                charts.append(chart)
    return charts


def _series(run: ReportData, model: str) -> int:
    """Colour number: 0 is the judged model's alone."""
    if model == run.model_name:
        return 0
    return 1 + run.baseline_names.index(model) % (NUM_SERIES - 1)


def _ranking_models(run: ReportData) -> list[str]:
    """Models that rank at all, the judged one last so that it is drawn on top."""
    ranking = [name for name in run.baseline_names if np.ptp(np.asarray(run.probabilities[name]))]
    return [*ranking, run.model_name]


def _draw_curves(
    run: ReportData,
    chart: Chart,
    curve_of: Callable[[npt.ArrayLike, npt.ArrayLike], Curve | None],
    metric: str | None = None,
) -> list[tuple[int, str]] | None:
    """Draw one curve per model and return the legend, or None where a curve is undefined."""
    legend = []
    for model in _ranking_models(run):
        curve = curve_of(run.labels, run.probabilities[model])
        if curve is None:
            return None
        title, series = run.title_of(model), _series(run, model)
        chart.line(title, curve.x.tolist(), curve.y.tolist(), series)
        value = f" {float(run.metrics[model][metric][0]):.3f}" if metric else ""
        legend.append((series, title + value))
    return legend[::-1]


def _roc_chart(run: ReportData) -> ChartView | None:
    """ROC curves."""
    chart = Chart(
        title="ROC curve",
        description=_summary(run, "auroc", "area under the curve"),
        x=Axis(label="Share of stayers flagged"),
        y=Axis(label="Share of churners flagged"),
    )
    chart.reference([0.0, 1.0], [0.0, 1.0], "no better than chance")
    legend = _draw_curves(run, chart, roc_curve, "auroc")
    if legend is None:
        return None
    return ChartView(
        name="roc",
        title="ROC: telling churners from stayers",
        caption="The further a line bends to the top left, the better. The dashed line is chance. "
        "The number is the area under the line (AUROC).",
        svg=chart.svg(),
        legend=legend,
    )


def _precision_recall_chart(run: ReportData) -> ChartView | None:
    """Precision-recall curves with the base rate."""
    base_rate = float(np.mean(np.asarray(run.labels, dtype=np.float64)))
    chart = Chart(
        title="Precision-recall curve",
        description=_summary(run, "average_precision", "average precision"),
        x=Axis(label="Share of churners found (recall)"),
        y=Axis(label="Share of flagged who churn (precision)"),
    )
    chart.reference([0.0, 1.0], [base_rate, base_rate], f"base rate {base_rate:.1%}")
    legend = _draw_curves(run, chart, precision_recall_curve, "average_precision")
    if legend is None:
        return None
    return ChartView(
        name="precision-recall",
        title="Precision and recall",
        caption="How many of the flagged really churn, for every share of churners found. "
        f"The dashed line is the base rate, {base_rate:.1%}. The number is average precision.",
        svg=chart.svg(),
        legend=legend,
    )


def _calibration_chart(run: ReportData) -> ChartView:
    """Reliability of the judged model, over the spread of its scores."""
    bins = calibration_bins(run.labels, run.probabilities[run.model_name])
    error = float(run.metrics[run.model_name]["expected_calibration_error"][0])
    chart = Chart(
        title="Calibration",
        description=f"Expected calibration error {error:.3f} over {len(bins)} groups of customers",
        x=Axis(label="Predicted probability"),
        y=Axis(label="Share that churned"),
    )
    stayed, churned = probability_histogram(run.labels, run.probabilities[run.model_name])
    total = stayed + churned
    tallest = max(int(total.max()), 1)
    for index, count in enumerate(total.tolist()):
        if count:
            low, high = index / total.size, (index + 1) / total.size
            tip = f"{count:,} customers between {low:.0%} and {high:.0%}"
            chart.bar((low, high), 0.22 * count / tallest, 9, tip)
    chart.reference([0.0, 1.0], [0.0, 1.0], "said = happened")
    chart.line(
        run.title_of(run.model_name),
        [one.mean_probability for one in bins],
        [one.churn_rate for one in bins],
        0,
    )
    for one in bins:
        tip = (
            f"said {one.mean_probability:.1%}, happened {one.churn_rate:.1%} "
            f"({one.low:.1%} to {one.high:.1%}), {one.num_rows:,} customers"
        )
        chart.dot((one.mean_probability, one.churn_rate), 0, tip, vertical=(one.low, one.high))
    return ChartView(
        name="calibration",
        title="Calibration: does 30 % mean 30 %?",
        caption="Customers in ten groups of equal size by score. On the dashed line, what was said "
        "is what happened; whiskers are 95 % intervals. Grey bars: where the scores lie.",
        svg=chart.svg(),
        legend=[(0, f"{run.title_of(run.model_name)}, calibration error {error:.3f}")],
    )


def _score_chart(run: ReportData) -> ChartView:
    """Scores of churners and of stayers, each as a share of their class."""
    stayed, churned = probability_histogram(run.labels, run.probabilities[run.model_name])
    shares = [counts / max(int(counts.sum()), 1) for counts in (stayed, churned)]
    tallest = max(float(share.max()) for share in shares)
    chart = Chart(
        title="Scores of churners and stayers",
        description=f"Flag threshold at {run.threshold:.1%}",
        x=Axis(label="Predicted probability"),
        y=Axis(label="Share of the class", high=1.08 * tallest),
    )
    edges = np.linspace(0.0, 1.0, stayed.size + 1)
    names = ("who stayed", "who churned")
    for half, (share, counts) in enumerate(zip(shares, (stayed, churned), strict=True)):
        width = (edges[1] - edges[0]) / 2.0
        for index, value in enumerate(share.tolist()):
            if value > 0.0:
                low = float(edges[index]) + half * width
                tip = (
                    f"{edges[index]:.0%} to {edges[index + 1]:.0%}: "
                    f"{int(counts[index]):,} {names[half]} ({value:.1%} of them)"
                )
                chart.bar((low, low + width), value, 7 + half, tip)
    chart.marker(run.threshold, f"flag from {run.threshold:.1%}")
    return ChartView(
        name="scores",
        title="Scores of churners and stayers",
        caption="The less the two overlap, the better. Customers right of the line are flagged.",
        svg=chart.svg(),
        legend=[(7, "stayed"), (8, "churned")],
    )


def _gain_chart(run: ReportData) -> ChartView | None:
    """Cumulative gain."""
    chart = Chart(
        title="Cumulative gain",
        description=_summary(run, "lift_at_10pct", "lift in the top 10 %"),
        x=Axis(label="Share of customers contacted, most at risk first"),
        y=Axis(label="Share of churners reached"),
    )
    chart.reference([0.0, 1.0], [0.0, 1.0], "contacted at random")
    legend = _draw_curves(run, chart, gain_curve)
    if legend is None:
        return None
    base_rate = float(np.mean(np.asarray(run.labels, dtype=np.float64)))
    chart.reference([0.0, base_rate, 1.0], [0.0, 1.0, 1.0], "perfect foresight")
    return ChartView(
        name="gain",
        title="Gain: reaching churners with a limited budget",
        caption="Contact this share of customers, reach that share of those about to leave. "
        "Dashed: at random, and with perfect foresight.",
        svg=chart.svg(),
        legend=legend,
    )


def _lift_chart(run: ReportData) -> ChartView | None:
    """Lift by share contacted."""
    curves = [lift_curve(run.labels, run.probabilities[name]) for name in _ranking_models(run)]
    highest = max((float(curve.y.max()) for curve in curves if curve is not None), default=1.0)
    chart = Chart(
        title="Lift",
        description=_summary(run, "lift_at_10pct", "lift in the top 10 %"),
        x=Axis(label="Share of customers contacted, most at risk first"),
        y=Axis(label="Times the base rate", high=max(1.1 * highest, 1.2), kind="number"),
    )
    chart.reference([0.0, 1.0], [1.0, 1.0], "contacted at random")
    legend = _draw_curves(run, chart, lift_curve, "lift_at_10pct")
    if legend is None:
        return None
    return ChartView(
        name="lift",
        title="Lift: how much richer in churners the top is",
        caption="Churn rate among the most at risk, as a multiple of the average. "
        "The number is the lift in the top 10 %.",
        svg=chart.svg(),
        legend=legend,
    )


def _summary(run: ReportData, metric: str, words: str) -> str:
    """Write a metric of every model for a screen reader."""
    values = ", ".join(
        f"{run.title_of(name)} {float(run.metrics[name][metric][0]):.3f}"
        for name in [run.model_name, *run.baseline_names]
    )
    return f"{words}: {values}"


def _is_loss(key: str) -> bool:
    return key.endswith("loss")


def _is_score(key: str) -> bool:
    return key.startswith("valid_") and not key.endswith("loss")


def _history_chart(
    name: str,
    stage: str,
    part: str,
    entries: Sequence[Mapping[str, Any]],
    is_shown: Callable[[str], bool],
) -> ChartView | None:
    """Draw all numeric values of a stage that `is_shown` accepts over steps, or else epochs."""
    over = next((key for key in ("step", "epoch") if any(key in entry for entry in entries)), None)
    lines: dict[str, list[tuple[float, float]]] = {}
    for place, entry in enumerate(entries):
        at = _number(entry.get(over, place)) if over else float(place)
        for key, value in entry.items():
            number = _number(value)
            if at is not None and number is not None and is_shown(key):
                lines.setdefault(key, []).append((at, number))
    if not lines:
        return None
    values = [value for points in lines.values() for _, value in points]
    places = [place for points in lines.values() for place, _ in points]
    pad = 0.06 * (max(values) - min(values)) or 0.01 * abs(values[0]) or 0.01
    end = max(places) if max(places) > min(places) else min(places) + 1.0
    chart = Chart(
        title=f"{stage}: {part}",
        description=", ".join(
            f"{key} ends at {points[-1][1]:.4g}" for key, points in lines.items()
        ),
        x=Axis(label=(over or "entry").capitalize(), low=min(places), high=end, kind="number"),
        y=Axis(
            label=part.capitalize(), low=min(values) - pad, high=max(values) + pad, kind="number"
        ),
    )
    legend = []
    for series, (key, points) in enumerate(sorted(lines.items())):
        colour = _history_colour(key, series)
        kept = _thinned(sorted(points))
        chart.line(key, [at for at, _ in kept], [value for _, value in kept], colour)
        if len(kept) <= 30:
            for at, value in kept:
                chart.dot((at, value), colour, f"{key} {value:.4g} at {over or 'entry'} {at:g}")
        legend.append((colour, key))
    return ChartView(
        name=f"history-{name}",
        title=f"{stage}: {part}",
        caption="Validation rows are never trained on. Training goes back to the best validation."
        if part == "score" or any(key.startswith("valid") for key in lines)
        else "The loss on what the model learns from.",
        svg=chart.svg(),
        legend=legend,
    )


def _history_colour(key: str, series: int) -> int:
    """Validation has the model's colour, training the first baseline's."""
    if key == "train_loss":
        return 1
    if key in ("valid_loss", "valid_auroc"):
        return 0
    return 2 + series % (NUM_SERIES - 2)


def _number(value: Any) -> float | None:
    """Return a finite number, or None for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
        return None
    number = float(value)
    return number if math.isfinite(number) else None


def _thinned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Keep at most `MAX_POINTS`, averaging neighbours so that no spike is picked by chance."""
    if len(points) <= MAX_POINTS:
        return points
    parts = np.array_split(np.asarray(points, dtype=np.float64), MAX_POINTS)
    return [(float(part[:, 0].mean()), float(part[:, 1].mean())) for part in parts]
