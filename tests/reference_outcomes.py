"""What churn_score_outcomes must hold, worked out in Python from raw events.

``OutcomeLedger`` is told, build after build, what events and scores there are, and keeps the
outcomes as the table should.
"""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Collection, Iterable, Mapping
from typing import Any

Key = tuple[str, datetime.date, str]
"""User, cutoff, bundle."""
Purchase = tuple[str, datetime.date]
"""User and UTC date."""


@dataclasses.dataclass(frozen=True)
class Windows:
    """Lengths in days."""

    eligibility_days: int
    gap_days: int
    horizon_days: int


@dataclasses.dataclass(frozen=True)
class Score:
    """One row of churn_scores."""

    probability: float
    risk_tier: str
    is_flagged: bool
    scored_at: datetime.datetime


@dataclasses.dataclass
class Outcome:
    """One row of churn_score_outcomes; numbers of builds stand for its timestamps."""

    score: Score
    is_churned: bool
    first_is_churned: bool
    horizon_end: datetime.date
    is_out_of_time: bool | None
    recorded_in: int
    num_changes: int = 0
    changed_in: int | None = None


class OutcomeLedger:
    """The outcomes as they should stand after each build."""

    def __init__(self, windows: Windows) -> None:
        self.windows = windows
        self.outcomes: dict[Key, Outcome] = {}
        self.num_builds = 0

    def build(
        self,
        purchases: Iterable[Purchase],
        scores: Mapping[Key, Score],
        trained_until: Mapping[str, datetime.date | None],
    ) -> None:
        """Take what a build sees.

        Args:
            purchases: All events, each qualifying.
            scores: Rows of churn_scores.
            trained_until: Bundle to the end of its newest label horizon; None if unknown.
        """
        days_of: dict[str, set[datetime.date]] = {}
        for user, day in purchases:
            days_of.setdefault(user, set()).add(day)
        data_end = max(day for days in days_of.values() for day in days)
        for key in list(self.outcomes):
            user, cutoff, _ = key
            is_open = self.outcomes[key].horizon_end > data_end
            if is_open or not self.is_eligible(days_of.get(user, ()), cutoff):
                del self.outcomes[key]
        recorded = {key: outcome.score for key, outcome in self.outcomes.items()}
        for key, score in {**recorded, **scores}.items():
            user, cutoff, bundle = key
            horizon_end = self.horizon_end(cutoff)
            if horizon_end > data_end or not self.is_eligible(days_of.get(user, ()), cutoff):
                continue
            until = trained_until.get(bundle)
            self._take(
                key,
                Outcome(
                    score=score,
                    is_churned=self.has_churned(days_of[user], cutoff),
                    first_is_churned=self.has_churned(days_of[user], cutoff),
                    horizon_end=horizon_end,
                    is_out_of_time=until <= cutoff if until is not None else None,
                    recorded_in=self.num_builds,
                ),
            )
        self.num_builds += 1

    def is_eligible(self, days: Collection[datetime.date], cutoff: datetime.date) -> bool:
        """Tell whether a user was active before the cutoff."""
        first = cutoff - datetime.timedelta(days=self.windows.eligibility_days)
        return any(first <= day < cutoff for day in days)

    def has_churned(self, days: Collection[datetime.date], cutoff: datetime.date) -> bool:
        """Tell whether a user stayed away for the whole horizon."""
        first = cutoff + datetime.timedelta(days=self.windows.gap_days)
        return not any(first <= day < self.horizon_end(cutoff) for day in days)

    def horizon_end(self, cutoff: datetime.date) -> datetime.date:
        """Return the first date after the horizon."""
        return cutoff + datetime.timedelta(days=self.windows.gap_days + self.windows.horizon_days)

    def _take(self, key: Key, seen: Outcome) -> None:
        known = self.outcomes.setdefault(key, seen)
        known.score = seen.score
        if seen.is_out_of_time is not None:
            known.is_out_of_time = seen.is_out_of_time
        if known.is_churned != seen.is_churned:
            known.is_churned = seen.is_churned
            known.num_changes += 1
            known.changed_in = self.num_builds

    def rows(self) -> list[tuple[Any, ...]]:
        """Return the rows in the order of OUTCOME_COLUMNS, builds by number."""
        return sorted(
            (
                *(user, cutoff, bundle),
                *(one.score.probability, one.score.risk_tier, one.score.is_flagged),
                *(one.score.scored_at, one.is_churned, one.first_is_churned, one.num_changes),
                *(one.horizon_end, one.is_out_of_time, one.recorded_in, one.changed_in),
            )
            for (user, cutoff, bundle), one in self.outcomes.items()
        )


OUTCOME_COLUMNS = (
    *("user_id", "cutoff_date", "bundle_id", "churn_probability", "risk_tier", "is_flagged"),
    *("scored_at", "is_churned", "first_is_churned", "label_change_count"),
    *("horizon_end_date", "is_out_of_time", "recorded_at", "label_changed_at"),
)
