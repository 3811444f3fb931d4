"""The page: facts become HTML that needs nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainer.health_report.charts import (
    bins_chart,
    cutoff_chart,
    dumbbell,
    score_chart,
    series_of,
    sparkline,
)
from trainer.health_report.models import NUM_LOG_SHOWN
from trainer.health_report.texts import (
    CAUSES,
    CHECK_TITLES,
    FILTERS,
    KIND_TITLES,
    LEVEL_WORDS,
    SEVERITY_WORDS,
    count,
    day,
    metric,
    number,
    percent,
)
from trainer.report.charts import ChartView
from trainer.report.page import page_environment, source_of

CSS_LEVELS = {"healthy": "good", "look": "even", "act": "bad"}
NUM_DRIFT_SHOWN = 10
NUM_CUTOFFS_SHOWN = 7
NUM_DRIFT_LISTED = 200


def render_health(facts: Mapping[str, Any], *, title: str = "Is the churn model healthy?") -> str:
    """Return the page as self-contained HTML: no other file, no URL, no script.

    Args:
        facts: Of ``health_facts``.
        title: Of the page.
    """
    environment = page_environment("trainer.health_report")
    environment.filters.update(FILTERS)
    environment.globals.update(
        causes=CAUSES,
        check_titles=CHECK_TITLES,
        kind_titles=KIND_TITLES,
        level_words=LEVEL_WORDS,
        severity_words=SEVERITY_WORDS,
        dumbbell=dumbbell,
        drift_spark=_drift_spark,
        volume_spark=_volume_spark,
        num_drift_shown=NUM_DRIFT_SHOWN,
        num_drift_listed=NUM_DRIFT_LISTED,
        num_log_shown=NUM_LOG_SHOWN,
        num_cutoffs_shown=NUM_CUTOFFS_SHOWN,
    )
    return environment.get_template("health.html.j2").render(
        title=title,
        css_level=CSS_LEVELS[facts["verdict"]["level"]],
        base_style=source_of(environment, "report.css"),
        style=source_of(environment, "health.css"),
        outcome_charts=_outcome_charts(facts),
        bins=bins_chart(facts["outcomes"]["bins"], _cutoff(facts["outcomes"]["newest"])),
        base_rate_chart=_base_rate_chart(facts),
        score_chart=score_chart(facts["scores"]),
        **facts,
    )


def _cutoff(row: Mapping[str, Any] | None) -> Any:
    return row["cutoff_date"] if row else None


def _outcome_charts(facts: Mapping[str, Any]) -> list[ChartView]:
    """Draw quality over matured cutoffs."""
    outcomes, champion = facts["outcomes"], facts["champion"] or {}
    rows, changes = outcomes["rows"], outcomes["champion_changes"]
    tested = number(champion.get("test_auroc"))
    charts = [
        cutoff_chart(
            "auroc",
            "Ranking: AUROC",
            "The chance that a customer who churned had a higher score than one who stayed; .5 is "
            "chance." + (" Dashed: the champion on its test." if tested is not None else ""),
            [series_of("AUROC", 0, rows, "auroc")],
            kind="number",
            reference=(tested, "the champion on its test"),
            changes=changes,
        ),
        cutoff_chart(
            "average-precision",
            "Ranking: average precision",
            "Precision over all shares of churners found. Guessing would reach the base rate.",
            [
                series_of("average precision", 0, rows, "average_precision"),
                series_of("base rate", 1, rows, "base_rate"),
            ],
            kind="number",
            limits=(0.0, None),
            changes=changes,
        ),
        cutoff_chart(
            "said-happened",
            "What was said, and what happened",
            "Mean probability against the share that churned: the two should run together.",
            [
                series_of("said", 0, rows, "mean_probability"),
                series_of("happened", 1, rows, "base_rate"),
            ],
            changes=changes,
        ),
        cutoff_chart(
            "calibration-error",
            "Calibration error",
            "How far what was said is from what happened, over ten groups; 0 is best.",
            [series_of("calibration error", 0, rows, "calibration_error")],
            kind="number",
            limits=(0.0, 0.05),
            changes=changes,
        ),
    ]
    return [chart for chart in charts if chart is not None]


def _base_rate_chart(facts: Mapping[str, Any]) -> ChartView | None:
    """Draw expected and observed base rates."""
    found = facts["base_rates"]
    level = number(found["newest"]["reference_base_rate"]) if found["newest"] else None
    return cutoff_chart(
        "base-rate-chart",
        "Expected and observed base rate",
        "What the model expects of the customers there are, and what happened once it is known."
        + (" Dashed: the rate in training." if level is not None else ""),
        [
            series_of("expected", 0, found["rows"], "expected_base_rate"),
            series_of("observed", 1, found["rows"], "observed_base_rate"),
        ],
        reference=(level, "in training"),
    )


def _drift_spark(row: Mapping[str, Any]) -> Any:
    """Draw the stability index of a subject over cutoffs."""
    points = row["history"]
    if not points:
        return ""
    spoken = (
        f"stability index of {row['subject']} from {metric(points[0][1])} at {day(points[0][0])} "
        f"to {metric(points[-1][1])} at {day(points[-1][0])}"
    )
    # A scale that always reaches the usual bound of alarm: noise must not look like a mountain.
    is_odd = [False] * (len(points) - 1) + [row["severity"] in ("warn", "error")]
    return sparkline(points, spoken, bands=[(0.0, 0.1)] * len(points), marked=is_odd)


def _volume_spark(one: Mapping[str, Any]) -> Any:
    """Draw the events of a type by day with the band of what is usual."""
    days = [row for row in one["days"] if number(row["event_count"]) is not None]
    if not days:
        return ""
    odd = sum(1 for row in days if row["severity"] not in ("ok", None))
    spoken = (
        f"{one['event_type']} events by day, {day(days[0]['event_date'])} to "
        f"{day(days[-1]['event_date'])}: last {count(days[-1]['event_count'])}, {odd} unusual days"
        f" ({percent(odd / len(days), 0)})"
    )
    return sparkline(
        [(row["event_date"], float(row["event_count"])) for row in days],
        spoken,
        bands=[(number(row["expected_low"]), number(row["expected_high"])) for row in days],
        marked=[row["severity"] not in ("ok", None) for row in days],
    )
