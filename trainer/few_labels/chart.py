"""A learning curve as a table for terminals and as a page with charts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from trainer.few_labels.learning_curve import METRICS, MODEL_TITLES
from trainer.report.svg import Axis, Chart

CHART_FILE = "learning_curve.html"
METRIC_LABELS = {
    "auroc": "AUROC",
    "average_precision": "Average precision",
    "log_loss": "Log loss",
    "brier_score": "Brier score",
}
SERIES = {model: number for number, model in enumerate(MODEL_TITLES)}


class LogAxis(Axis):
    """An axis of counts whose positions are their decimal logarithms."""

    def ticks(self) -> list[float]:
        """Return the powers of ten and their triples inside the axis."""
        numbers = [factor * 10**power for power in range(1, 8) for factor in (1, 3)]
        return [math.log10(n) for n in numbers if self.low <= math.log10(n) <= self.high]

    def text(self, value: float) -> str:
        """Write a tick as the count that it stands for."""
        return f"{round(10**value):,}"


def curve_table(document: Mapping[str, Any], metric: str) -> str:
    """Return one metric, a row per number of labels and a column per model.

    Args:
        document: Content of ``learning_curve.json``.
        metric: Of ``METRICS``.
    """
    cells = _cells(document, metric)
    models = [model for model in MODEL_TITLES if any(model == key[0] for key in cells)]
    widths = {
        model: max(len(model), *(len(text) for key, text in cells.items() if key[0] == model))
        for model in models
    }
    lines = ["labels".rjust(8) + "".join("  " + name.rjust(widths[name]) for name in models)]
    for size in sorted({key[1] for key in cells}):
        row = "".join(f"  {cells.get((name, size), '-').rjust(widths[name])}" for name in models)
        lines.append(f"{size:>8,}{row}")
    counts = sorted({entry["seeds"] for entry in document["summary"]})
    seeds = " to ".join(dict.fromkeys(str(count) for count in (counts[0], counts[-1])))
    title = f"{METRIC_LABELS[metric]} on {document['split']}, mean ± deviation, seeds: {seeds}"
    return "\n".join([title, *lines])


def render_curve(document: Mapping[str, Any]) -> str:
    """Return a self-contained page with one chart and one table per metric.

    Args:
        document: Content of ``learning_curve.json``.
    """
    environment = Environment(
        loader=PackageLoader("trainer.few_labels", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    shown = {entry["model"] for entry in document["summary"]}
    return environment.get_template("learning_curve.html.j2").render(
        document=document,
        charts=[
            (METRIC_LABELS[metric], _chart(document, metric), curve_table(document, metric))
            for metric in METRICS
        ],
        legend=[(SERIES[model], MODEL_TITLES[model]) for model in MODEL_TITLES if model in shown],
    )


def _cells(document: Mapping[str, Any], metric: str) -> dict[tuple[str, int], str]:
    """Return the text of every (model, labels)."""
    cells = {}
    for entry in document["summary"]:
        value = entry[metric]
        spread = "" if value["std"] is None else f" ± {value['std']:.3f}"
        cells[entry["model"], entry["labels"]] = f"{value['mean']:.3f}{spread}"
    return cells


def _chart(document: Mapping[str, Any], metric: str) -> Markup:
    """Draw one metric over the number of labels; whiskers are one deviation."""
    summary = document["summary"]
    ends = [
        entry[metric]["mean"] + sign * (entry[metric]["std"] or 0.0)
        for entry in summary
        for sign in (-1.0, 1.0)
    ]
    places = [math.log10(entry["labels"]) for entry in summary]
    pad = 0.08 * (max(ends) - min(ends)) + 0.002
    label = METRIC_LABELS[metric]
    chart = Chart(
        title=f"{label} by number of labels",
        description=curve_table(document, metric),
        x=LogAxis(label="Labelled training rows", low=min(places) - 0.1, high=max(places) + 0.1),
        y=Axis(label=label, low=min(ends) - pad, high=max(ends) + pad, kind="number"),
    )
    for model, series in SERIES.items():
        entries = sorted(
            (entry for entry in summary if entry["model"] == model), key=lambda row: row["labels"]
        )
        if not entries:
            continue
        at = [math.log10(entry["labels"]) for entry in entries]
        means = [entry[metric]["mean"] for entry in entries]
        chart.line(MODEL_TITLES[model], at, means, series)
        for place, entry in zip(at, entries, strict=True):
            mean, spread = entry[metric]["mean"], entry[metric]["std"]
            span = None if spread is None else (mean - spread, mean + spread)
            tip = f"{MODEL_TITLES[model]}, {entry['labels']:,} labels: {mean:.4f}"
            chart.dot((place, mean), series, tip, vertical=span)
    return chart.svg()
