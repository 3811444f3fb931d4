"""The charts of the health report: values over cutoffs, bins, scores, sparklines."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from html import escape
from typing import Any

from markupsafe import Markup

from trainer.health_report.texts import count, day, metric, number, percent, short_id
from trainer.report.charts import ChartView
from trainer.report.svg import Axis, Chart

HEIGHT = 250
MAX_TICKS = 5
LONG_SPAN_DAYS = 120
NUM_SCORE_BINS = 20
MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
SPARK_WIDTH, SPARK_HEIGHT = 132, 30
Point = tuple[date, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class DateAxis(Axis):
    """An axis of dates whose positions are their ordinals."""

    dates: tuple[date, ...] = ()
    """Those that may be ticks."""

    def ticks(self) -> list[float]:
        """Return a few of the dates, evenly apart, or beginnings of months over a long time."""
        if self.high - self.low > LONG_SPAN_DAYS:
            first, last = (date.fromordinal(math.floor(end)) for end in (self.low, self.high))
            span = range(first.year * 12 + first.month, last.year * 12 + last.month)
            months = [date(month // 12, month % 12 + 1, 1) for month in span]
            return _thinned([float(month.toordinal()) for month in months])
        return _thinned([float(one.toordinal()) for one in self.dates])

    def text(self, value: float) -> str:
        """Write a tick."""
        found = date.fromordinal(round(value))
        month = MONTHS[found.month - 1]
        if self.high - self.low > LONG_SPAN_DAYS:
            return f"{month} {found.year}" if found.month == 1 else month
        return f"{found.day} {month}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Series:
    """A line over cutoffs."""

    name: str
    colour: int
    points: tuple[tuple[Mapping[str, Any], float], ...]
    """(row, value); hollow where the row is not known to be out of time."""


def series_of(name: str, colour: int, rows: Iterable[Mapping[str, Any]], column: str) -> Series:
    """Return the values of a column that are there."""
    values = [(row, number(row[column])) for row in rows]
    return Series(
        name=name,
        colour=colour,
        points=tuple((row, value) for row, value in values if value is not None),
    )


def cutoff_chart(
    name: str,
    title: str,
    caption: str,
    series: Sequence[Series],
    *,
    kind: str = "percent",
    limits: tuple[float | None, float | None] = (None, None),
    reference: tuple[float | None, str] = (None, ""),
    changes: Sequence[Mapping[str, Any]] = (),
) -> ChartView | None:
    """Draw lines over cutoffs; None where there is no value.

    Args:
        name: HTML id.
        title: Above the chart.
        caption: How to read it.
        series: The lines.
        kind: How values are written: percent or number.
        limits: What the y axis holds at least; None leaves it to the values.
        reference: A level to compare with, and its name.
        changes: Cutoffs at which another champion scored for the first time.
    """
    values = [value for one in series for _, value in one.points]
    dates = sorted({row["cutoff_date"] for one in series for row, _ in one.points})
    if not values:
        return None
    level, level_name = reference
    held = [*values, *(end for end in (*limits, level) if end is not None)]
    pad = 0.08 * (max(held) - min(held)) or 0.05 * abs(held[0]) or 0.05
    room = 2.2 * pad if changes else pad  # for the names of the models
    low = min(held) if limits[0] == min(held) else min(held) - pad
    margin = 2.0 if len(dates) < 2 else 0.03 * (dates[-1] - dates[0]).days
    chart = Chart(
        title=title,
        description=_spoken(series, kind),
        x=DateAxis(
            label="Cutoff",
            low=dates[0].toordinal() - margin,
            high=dates[-1].toordinal() + margin,
            dates=tuple(dates),
            kind="number",
        ),
        y=Axis(label="", low=max(low, 0.0), high=min(max(held) + room, 1.0), kind=kind),
        height=HEIGHT,
        left=54,
        has_titles=True,
    )
    legend = []
    if level is not None:
        chart.reference([chart.x.low, chart.x.high], [level, level], level_name)
    for change in changes[-3:]:
        place = change["cutoff_date"].toordinal()
        chart.marker(place, f"model {short_id(change['bundle_id'])}")
    for one in series:
        if not one.points:
            continue
        places = [row["cutoff_date"].toordinal() for row, _ in one.points]
        chart.line(one.name, places, [value for _, value in one.points], one.colour)
        for (row, value), place in zip(one.points, places, strict=True):
            tip = f"{one.name} {_written(value, kind)} at {day(row['cutoff_date'])}"
            tip += f", model {short_id(row.get('bundle_id'))}"
            is_hollow = "is_out_of_time" in row and not row["is_out_of_time"]
            tip += ", not known to be out of time" if is_hollow else ""
            chart.dot((place, value), one.colour, tip, is_hollow=is_hollow)
        legend.append((one.colour, f"{one.name}, last {_written(one.points[-1][1], kind)}"))
    return ChartView(name=name, title=title, caption=caption, svg=chart.svg(), legend=legend)


def bins_chart(bins: Sequence[Mapping[str, Any]], cutoff: date | None) -> ChartView | None:
    """Draw what was said against what happened, in bins, with 95 % intervals."""
    if not bins:
        return None
    top = max(max(row["mean_probability"], row["observed_rate"]) for row in bins)
    high = min(1.0, math.ceil(10.0 * top + 0.5) / 10.0)
    words = ", ".join(
        f"said {percent(row['mean_probability'], 0)} happened {percent(row['observed_rate'], 0)}"
        for row in bins
    )
    chart = Chart(
        title=f"Calibration at {day(cutoff)}",
        description=words,
        x=Axis(label="Said", high=high),
        y=Axis(label="Happened", high=high),
        height=HEIGHT + 60,
        has_titles=True,
    )
    chart.reference([0.0, high], [0.0, high], "said = happened")
    chart.line(
        "the model",
        [row["mean_probability"] for row in bins],
        [row["observed_rate"] for row in bins],
        0,
    )
    for row in bins:
        rate, users = float(row["observed_rate"]), max(int(row["user_count"]), 1)
        low, above = wilson(rate, users)
        tip = (
            f"said {percent(row['mean_probability'])}, happened {percent(rate)} "
            f"({percent(low)} to {percent(above)}), {count(users)} customers"
        )
        chart.dot((row["mean_probability"], rate), 0, tip, vertical=(low, min(above, high)))
    return ChartView(
        name="bins",
        title=f"Does 30 % mean 30 %? Scores of {day(cutoff)}",
        caption="Customers in ten groups by score. On the dashed line, what was said is what "
        "happened; whiskers are 95 % intervals.",
        svg=chart.svg(),
        legend=[],
    )


def score_chart(scores: Mapping[str, Any]) -> ChartView | None:
    """Draw how scores are distributed now, and how they were at the cutoff before."""
    if not scores["bins"]:
        return None
    now = {one["bin"]: one for one in scores["bins"]}
    before = {one["bin"]: one["share"] for one in scores["previous_bins"]}
    tallest = max([one["share"] for one in now.values()] + list(before.values()))
    step = 1.0 / NUM_SCORE_BINS
    chart = Chart(
        title="Scores now and before",
        description=f"{count(scores['user_count'])} customers, "
        f"{percent(scores['mean_probability'])} on average",
        x=Axis(label="Probability of churn"),
        y=Axis(label="", high=1.08 * tallest),
        height=HEIGHT,
        left=54,
        has_titles=True,
    )
    for place, one in now.items():
        span, customers = f"{place * step:.0%} to {(place + 1) * step:.0%}", one["user_count"]
        tip = f"{span}: {count(customers)} customers"
        chart.bar((place * step, (place + 1) * step), one["share"], 9, tip)
    legend = [(9, f"cutoff {day(scores['cutoff_date'])}")]
    if before:
        places = [place * step for place in range(NUM_SCORE_BINS + 1)]
        shares = [before.get(min(place, NUM_SCORE_BINS - 1), 0.0) for place in range(len(places))]
        stairs_x = [end for left in places[:-1] for end in (left, left + step)]
        stairs_y = [share for share in shares[:-1] for _ in range(2)]
        chart.line(f"cutoff {day(scores['previous_cutoff_date'])}", stairs_x, stairs_y, 1)
        legend.append((1, f"cutoff {day(scores['previous_cutoff_date'])}"))
    return ChartView(
        name="score-distribution",
        title="How the scores are distributed",
        caption="Share of customers by probability; the line is the cutoff before.",
        svg=chart.svg(),
        legend=legend,
    )


def sparkline(
    points: Sequence[Point],
    spoken: str,
    *,
    bands: Sequence[tuple[float | None, float | None]] = (),
    marked: Sequence[bool] = (),
) -> Markup:
    """Draw a word-sized line: its band of expected values, and the places to look at.

    Args:
        points: (date, value), oldest first.
        spoken: The text in its place.
        bands: (low, high) of each point, None where not known.
        marked: Whether each point is to be marked.
    """
    if not points:
        return Markup("")
    known = [end for band in bands for end in band if end is not None]
    top = max([value for _, value in points] + known) or 1.0
    first = points[0][0].toordinal()
    span = max(points[-1][0].toordinal() - first, 1)

    def at(place: int, value: float) -> str:
        x = 4 + (points[place][0].toordinal() - first) / span * (SPARK_WIDTH - 8)
        y = SPARK_HEIGHT - 3 - value / top * (SPARK_HEIGHT - 6)
        return f"{x:.1f},{y:.1f}"

    parts = [
        f'<svg class="spark" role="img" aria-label="{escape(spoken)}" '
        f'viewBox="0 0 {SPARK_WIDTH} {SPARK_HEIGHT}" xmlns="http://www.w3.org/2000/svg">'
    ]
    whole = [
        (place, low, high)
        for place, (low, high) in enumerate(bands)
        if low is not None and high is not None
    ]
    if whole:
        outline = [at(place, high) for place, _, high in whole]
        outline += [at(place, low) for place, low, _ in reversed(whole)]
        parts.append(f'<polygon class="band" points="{" ".join(outline)}"/>')
    line = " ".join(at(place, value) for place, (_, value) in enumerate(points))
    parts.append(f'<polyline class="spark-line" points="{line}"/>')
    for place, (when, value) in enumerate(points):
        is_marked = bool(marked[place]) if place < len(marked) else False
        if is_marked or place == len(points) - 1:
            x, y = at(place, value).split(",")
            css = "spark-odd" if is_marked else "spark-end"
            parts.append(
                f'<circle class="{css}" cx="{x}" cy="{y}" r="{3.4 if is_marked else 2.4}">'
                f"<title>{day(when)}: {value:,.4g}</title></circle>"
            )
    return Markup("".join([*parts, "</svg>"]))


def dumbbell(before: float | None, after: float | None) -> Markup:
    """Draw a change on a rail from 0 to 100 %: hollow before, filled after."""
    if before is None or after is None:
        return Markup("")
    start, end = (6 + 108 * min(max(value, 0.0), 1.0) for value in (before, after))
    css = "up" if after > before else "down"
    return Markup(
        f'<svg class="dumbbell {css}" aria-hidden="true" viewBox="0 0 120 14" '
        'xmlns="http://www.w3.org/2000/svg"><line class="rail-line" x1="6" x2="114" y1="7" y2="7"/>'
        f'<line class="move" x1="{start:.1f}" x2="{end:.1f}" y1="7" y2="7"/>'
        f'<circle class="from" cx="{start:.1f}" cy="7" r="4"/>'
        f'<circle class="to" cx="{end:.1f}" cy="7" r="4.5"/></svg>'
    )


def wilson(rate: float, users: int) -> tuple[float, float]:
    """Return the 95 % Wilson interval of a share."""
    z = 1.959963984540054
    centre = rate + z * z / (2 * users)
    spread = z * math.sqrt(rate * (1.0 - rate) / users + z * z / (4 * users * users))
    whole = 1.0 + z * z / users
    return (centre - spread) / whole, (centre + spread) / whole


def _thinned(values: list[float]) -> list[float]:
    """Keep a few values, evenly apart, the last among them."""
    step = max(1, math.ceil(len(values) / MAX_TICKS))
    return values[::-1][::step][::-1]


def _written(value: float, kind: str) -> str:
    return percent(value) if kind == "percent" else metric(value)


def _spoken(series: Sequence[Series], kind: str) -> str:
    """Write first and last value of every line, for a screen reader."""
    return "; ".join(
        f"{one.name} from {_written(one.points[0][1], kind)} at "
        f"{day(one.points[0][0]['cutoff_date'])} to {_written(one.points[-1][1], kind)} at "
        f"{day(one.points[-1][0]['cutoff_date'])}"
        for one in series
        if one.points
    )
