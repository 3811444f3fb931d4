"""What churn_event_volumes should say, in numpy and one day at a time."""

from __future__ import annotations

import dataclasses

import numpy as np

REFERENCE_WEEKS = 8
NEEDED_DAYS = 7 * REFERENCE_WEEKS + 6
"""Days before a day that is judged."""
DAY_WARN = ((5.0, 0.6), (6.0, 1.6))
WEEK_WARN = ((4.0, 0.7), (5.0, 1.5))
WEEK_ERROR = ((4.5, 0.5), (8.0, 3.0))


@dataclasses.dataclass(frozen=True)
class Verdict:
    """One row of the table."""

    severity: str
    reason: str | None
    expected: tuple[int, int] | None
    expected_week: tuple[int, int] | None


def judge(counts: np.ndarray, day: int) -> Verdict:
    """Return what a day deserves.

    Args:
        counts: (D,) events of one type on consecutive days, from its first event on.
        day: Index of the day.
    """
    if day < NEEDED_DAYS:
        return Verdict("ok", None, None, None)
    reference = counts[day - 7 * REFERENCE_WEEKS : day].reshape(REFERENCE_WEEKS, 7)
    is_open = reference.max(axis=0) > 0
    roots = np.sqrt(reference + 0.375)
    centres = np.median(roots, axis=0)
    weeks = np.array(
        [
            counts[day - 7 * back - 6 : day - 7 * back + 1].sum()
            for back in range(REFERENCE_WEEKS + 1)
        ]
    )
    week_roots = np.sqrt(weeks[1:] + 0.375)
    week_centre = np.median(week_roots)
    deviations = np.abs(roots - centres)[:, is_open]
    if not is_open.any() or week_centre**2 - 0.375 < 14:
        return Verdict("ok", None, None, None)
    if np.count_nonzero(reference) / (REFERENCE_WEEKS * is_open.sum()) < 0.333:
        return Verdict("ok", None, None, None)
    spread = max(0.5, 1.1 * np.quantile(deviations, 0.8) / 1.2816)
    week_deviation = np.median(np.abs(week_roots - week_centre))
    week_spread = max(spread, 1.1 * week_deviation / 0.6745)
    usual = _range(centres[0], spread, DAY_WARN)
    usual_week = _range(week_centre, week_spread, WEEK_WARN)
    tolerated_week = _range(week_centre, week_spread, WEEK_ERROR)
    reason, severity = None, "ok"
    if counts[day - 13 : day + 1].sum() == 0:
        reason, severity = "silent", "error"
    elif weeks[0] < tolerated_week[0]:
        reason, severity = "week_far_below", "error"
    elif weeks[0] > tolerated_week[1]:
        reason, severity = "week_far_above", "error"
    elif counts[day] < usual[0]:
        reason, severity = "day_below", "warn"
    elif counts[day] > usual[1]:
        reason, severity = "day_above", "warn"
    elif weeks[0] < usual_week[0]:
        reason, severity = "week_below", "warn"
    elif weeks[0] > usual_week[1]:
        reason, severity = "week_above", "warn"
    return Verdict(severity, reason, usual, usual_week)


def _range(
    centre: float, spread: float, limits: tuple[tuple[float, float], tuple[float, float]]
) -> tuple[int, int]:
    (low_spreads, low_share), (high_spreads, high_share) = limits
    count = centre**2 - 0.375
    low = min(max(centre - low_spreads * spread, 0.0) ** 2 - 0.375, low_share * count)
    high = max((centre + high_spreads * spread) ** 2 - 0.375, high_share * count)
    return int(np.ceil(round(low, 6))), int(np.floor(round(high, 6)))
