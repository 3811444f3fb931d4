"""Rendering the report: one HTML file that needs nothing else."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from trainer.evaluate.metrics import LOWER_IS_BETTER
from trainer.report.charts import comparison_chart, curve_charts, history_charts
from trainer.report.data import ReportData
from trainer.report.ensemble import ensemble_rows, fits_text
from trainer.report.page import page_environment, source_of
from trainer.report.segments import COLUMNS, reliability_views, slice_views, too_small_text
from trainer.report.words import (
    METRIC_TITLES,
    confusion_cells,
    fact_text,
    interval_text,
    summary_sentences,
    tier_rows,
    verdict,
)


def render_report(run: ReportData) -> str:
    """Return the report as self-contained HTML: no other file, no URL, works offline.

    Same data, same text: the page holds no clock and no random ids.
    """
    environment = page_environment()
    comparisons = [
        comparison_chart(run, "auroc", "AUROC"),
        comparison_chart(run, "average_precision", "Average precision"),
    ]
    return environment.get_template("report.html.j2").render(
        run=run,
        style=source_of(environment, "report.css"),
        script=source_of(environment, "report.js"),
        verdict=verdict(run),
        sentences=summary_sentences(run),
        tiles=_tiles(run),
        comparisons=[chart for chart in comparisons if chart is not None],
        charts=curve_charts(run),
        ensemble_rows=ensemble_rows(run),
        fits_text=fits_text(run),
        training_charts=history_charts(run.history),
        slices=slice_views(run),
        slice_columns=COLUMNS,
        too_small=too_small_text(run),
        reliability=reliability_views(run),
        confusion=confusion_cells(run),
        tiers=tier_rows(run),
        model_titles=[run.title_of(name) for name in _ordered(run)],
        metric_rows=_metric_rows(run),
        difference_rows=_difference_rows(run),
        importance=_importance_rows(run),
        calibration_rows=_calibration_rows(run.calibration),
        facts=[
            ("Run", _fact_rows(run.run_facts)),
            ("Data", _fact_rows(run.data_facts)),
            ("BERT and versions", _fact_rows(run.model_facts)),
        ],
    )


def _ordered(run: ReportData) -> list[str]:
    """The judged model first, then the baselines."""
    return [run.model_name, *run.baseline_names]


def _tiles(run: ReportData) -> list[dict[str, str]]:
    """The headline numbers."""
    tiles = []
    for metric in ("auroc", "average_precision", "lift_at_10pct", "brier_score"):
        title, meaning = METRIC_TITLES[metric]
        value, span = _metric_text(run, run.model_name, metric)
        tiles.append({"title": title, "meaning": meaning, "value": value, "span": span})
    base_rate = float(run.metrics[run.model_name]["base_rate"][0])
    tiles[1]["meaning"] = f"chance would be the base rate, {base_rate:.3f}"
    return tiles


def _metric_rows(run: ReportData) -> list[dict[str, Any]]:
    """One row per metric, one cell per model, the best marked."""
    rows = []
    for metric, (title, meaning) in METRIC_TITLES.items():
        values = {name: float(run.metrics[name][metric][0]) for name in _ordered(run)}
        best = _best(values.values(), metric)
        cells = []
        for name in _ordered(run):
            value, span = _metric_text(run, name, metric)
            cells.append({"value": value, "span": span, "is_best": values[name] == best})
        rows.append({"title": title, "meaning": meaning, "cells": cells})
    return rows


def _metric_text(run: ReportData, model: str, metric: str) -> tuple[str, str]:
    """Write a metric of a model: lifts with two decimals, all else with three."""
    return interval_text(run.metrics[model][metric], decimals=2 if "lift" in metric else 3)


def _best(values: Iterable[float], metric: str) -> float | None:
    """The best value; None where there is no better and worse."""
    known = [value for value in values if math.isfinite(value)]
    if metric == "base_rate" or len(known) < 2 or min(known) == max(known):
        return None
    return min(known) if metric in LOWER_IS_BETTER else max(known)


def _difference_rows(run: ReportData) -> list[dict[str, Any]]:
    """One row per baseline, one cell per metric, each judged by its interval."""
    rows = []
    for name, differences in run.differences.items():
        cells = []
        for interval in differences.values():
            value, span = interval_text(interval, signed=True)
            low, high = (float(number) for number in interval[1:3])
            mark = "better" if low > 0.0 else "worse" if high < 0.0 else "even"
            cells.append({"value": value, "span": span, "mark": mark})
        titles = [METRIC_TITLES[metric][0] for metric in differences]
        rows.append({"title": run.title_of(name), "metrics": titles, "cells": cells})
    return rows


def _importance_rows(run: ReportData) -> list[dict[str, str]]:
    """Features with their bar lengths."""
    largest = max((one.value for one in run.feature_importance), default=0.0) or 1.0
    return [
        {
            "name": one.name,
            "description": one.description,
            "value": f"{one.value:.3g}",
            "width": f"{100.0 * max(one.value, 0.0) / largest:.1f}",
        }
        for one in run.feature_importance
    ]


def _calibration_rows(table: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Kinds of calibration tried, with their cross-fitted log loss."""
    losses = table.get("cross_fitted_log_loss", {})
    return [
        {
            "kind": kind,
            "loss": "not tried" if loss is None else f"{loss:.4f}",
            "is_chosen": kind == table.get("chosen"),
        }
        for kind, loss in losses.items()
    ]


def _fact_rows(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Names and values as text."""
    return [(str(name).replace("_", " "), fact_text(value)) for name, value in facts.items()]
