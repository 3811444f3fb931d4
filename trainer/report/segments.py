"""The report's views by segment and by cutoff: tables, dots with intervals, reliability."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trainer.evaluate.slices import MIN_CLASS_ROWS
from trainer.report.charts import ChartView
from trainer.report.data import ReportData
from trainer.report.svg import Axis, Chart
from trainer.report.words import MISSING

#: Columns of a segment's table: metric, heading.
COLUMNS = (
    ("base_rate", "Churned"),
    ("auroc", "AUROC"),
    ("average_precision", "Average precision"),
    ("log_loss", "Log loss"),
    ("brier_score", "Brier score"),
    ("calibration_gap", "Said minus happened"),
    ("expected_calibration_error", "Calibration error"),
    ("flag_rate", "Flagged"),
    ("recall", "Recall"),
    ("precision", "Precision"),
)
#: Metrics that are drawn: metric, title, axis.
DRAWN = (
    ("auroc", "ranking (AUROC)", "AUROC"),
    ("calibration_gap", "said minus happened", "Mean probability minus churned share"),
)
EVERYBODY = "all test customers"
_SMALL_WIDTH, _SMALL_HEIGHT = 330, 260
_LABEL_CHARACTERS = 46


@dataclass(frozen=True, kw_only=True, slots=True)
class SliceView:
    """One slice: its table and charts."""

    name: str
    source: str
    rows: list[dict[str, Any]]
    """{title, size, too_small, cells: [{value, span}]}; the last row is everybody."""
    charts: list[ChartView]


def slice_views(run: ReportData) -> list[SliceView]:
    """Return a view of every slice."""
    if not run.slices:
        return []
    everybody = run.slices["all"]["metrics"]
    views = []
    for number, (name, division) in enumerate(run.slices["by"].items()):
        segments = division["segments"]
        rows = [_row(segment["segment"], segment) for segment in segments]
        rows.append(_row(EVERYBODY, {"metrics": everybody, "too_small": None}))
        charts = [
            _dots(run, f"slice-{number}-{drawn[0].replace('_', '-')}", name, segments, drawn)
            for drawn in DRAWN
        ]
        views.append(
            SliceView(
                name=name,
                source=division["source"],
                rows=rows,
                charts=[chart for chart in charts if chart is not None],
            )
        )
    return views


def reliability_views(run: ReportData) -> list[ChartView]:
    """Return reliability charts of every judged cutoff, test first, then of every segment."""
    charts = []
    for split in ("test", "valid"):
        found = run.reliability.get(split)
        for number, cutoff in enumerate(found["cutoffs"] if found else []):
            title = f"{split} cutoff {cutoff['segment']}"
            charts.append(_reliability(run, f"reliability-{split}-{number}", title, cutoff))
    for number, (name, division) in enumerate((run.slices.get("by") or {}).items()):
        divided = division["segments"] if len(division["segments"]) > 1 else []
        for place, segment in enumerate(divided):
            title = f"{name}: {segment['segment']}"
            charts.append(_reliability(run, f"reliability-slice-{number}-{place}", title, segment))
    return [chart for chart in charts if chart is not None]


def too_small_text(run: ReportData) -> str:
    """Say what a segment needs to be measured."""
    if not run.slices:
        return ""
    return (
        f"{run.slices['min_users']:,} users, {MIN_CLASS_ROWS} churners and {MIN_CLASS_ROWS} stayers"
    )


def _row(title: str, segment: Mapping[str, Any]) -> dict[str, Any]:
    """Return a table row."""
    size = ""
    if "rows" in segment:
        size = f"{segment['users']:,} users"
        if segment["rows"] != segment["users"]:
            size = f"{segment['rows']:,} examples of {size}"
    cells = []
    if segment["too_small"] is None:
        cells = [_cell(metric, segment["metrics"][metric]) for metric, _ in COLUMNS]
    return {"title": title, "size": size, "too_small": segment["too_small"], "cells": cells}


def _cell(metric: str, interval: Mapping[str, float | None]) -> dict[str, str]:
    """Write a value and its interval; gaps with their sign."""
    value, low, high = (interval[key] for key in ("value", "low", "high"))
    form = "+.3f" if metric == "calibration_gap" else ".3f"
    if value is None:
        return {"value": MISSING, "span": ""}
    span = "" if low is None or high is None else f"{low:{form}} to {high:{form}}"
    return {"value": f"{value:{form}}", "span": span}


def _dots(
    run: ReportData,
    identity: str,
    name: str,
    segments: Sequence[Mapping[str, Any]],
    drawn: tuple[str, str, str],
) -> ChartView | None:
    """Draw one metric of every measured segment as a dot with its interval."""
    metric, words, label = drawn
    overall = run.slices["all"]["metrics"][metric]["value"]
    found = [
        (segment["segment"], segment["metrics"][metric])
        for segment in segments
        if segment["too_small"] is None and segment["metrics"][metric]["low"] is not None
    ]
    if len(found) < 2 or overall is None:
        return None
    ends = [overall, *(interval[end] for _, interval in found for end in ("low", "high"))]
    if metric == "calibration_gap":
        ends.append(0.0)
    pad = 0.08 * (max(ends) - min(ends)) + 0.005
    chart = Chart(
        title=f"{name}: {words}",
        description=", ".join(f"{who} {interval['value']:.3f}" for who, interval in found),
        x=Axis(label=label, low=min(ends) - pad, high=max(ends) + pad, kind="number"),
        y=Axis(label="", low=0.0, high=float(len(found)), kind="number"),
        height=60 + 44 * len(found),
        left=12,
    )
    chart.reference([overall, overall], [0.0, float(len(found))], f"{EVERYBODY} {overall:.3f}")
    for place, (who, interval) in enumerate(found):
        at = len(found) - place - 0.68
        value = _cell(metric, interval)
        tip = f"{who}: {value['value']} ({value['span']})"
        span = (float(interval["low"]), float(interval["high"]))
        chart.dot((float(interval["value"]), at), 0, tip, horizontal=span)
        chart.row_label(at, f"{_shortened(who)}  {value['value']}")
    return ChartView(
        name=identity,
        title=f"{name}: {words}",
        caption=f"Dots with {run.confidence_text} intervals. The dashed line is {EVERYBODY}.",
        svg=chart.svg(y_ticks=False),
    )


def _reliability(
    run: ReportData, identity: str, title: str, segment: Mapping[str, Any]
) -> ChartView | None:
    """Draw what was said against what happened."""
    if segment["too_small"] is not None:
        return None
    table, metrics = segment["reliability"], segment["metrics"]
    gap = _cell("calibration_gap", metrics["calibration_gap"])
    error = metrics["expected_calibration_error"]["value"]
    chart = Chart(
        title=f"Reliability, {title}",
        description=f"Said minus happened {gap['value']}, calibration error {error:.3f}",
        x=Axis(label="Said"),
        y=Axis(label="Happened"),
        width=_SMALL_WIDTH,
        height=_SMALL_HEIGHT,
    )
    chart.reference([0.0, 1.0], [0.0, 1.0], "said = happened")
    bins = sorted(table["bins"], key=lambda one: float(one["mean_probability"]))
    chart.line(
        title,
        [float(one["mean_probability"]) for one in bins],
        [float(one["churn_rate"]) for one in bins],
        0,
    )
    for one in bins:
        tip = (
            f"said {one['mean_probability']:.1%}, happened {one['churn_rate']:.1%} "
            f"({one['low']:.1%} to {one['high']:.1%}), {one['rows']:,} examples"
        )
        at = (float(one["mean_probability"]), float(one["churn_rate"]))
        chart.dot(at, 0, tip, vertical=(float(one["low"]), float(one["high"])))
    slope = table["slope"]
    caption = f"Said minus happened {gap['value']} ({gap['span']}), error {error:.3f}"
    if slope is not None:
        caption += f", slope {slope['value']:.2f} ({slope['low']:.2f} to {slope['high']:.2f})"
    return ChartView(
        name=identity,
        title=title,
        caption=f"{caption}; {segment['rows']:,} examples.",
        svg=chart.svg(),
    )


def _shortened(text: str) -> str:
    """Cut a name that would run out of the chart."""
    return (
        text
        if len(text) <= _LABEL_CHARACTERS
        else f"{text[:_LABEL_CHARACTERS]}\N{HORIZONTAL ELLIPSIS}"
    )
