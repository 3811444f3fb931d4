"""What the checks look at: plain facts about the champion and about the warehouse."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import date


@dataclasses.dataclass(frozen=True, kw_only=True)
class Estimate:
    """A measured number and its standard error."""

    value: float
    error: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Promise:
    """What the champion's own test found; None where its ``metrics.json`` does not say."""

    auroc: Estimate | None = None
    log_loss_gain: Estimate | None = None
    """Log loss of always saying the base rate, minus that of the model."""
    calibration_error: Estimate | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChampionFacts:
    """The champion, as far as its bundle tells."""

    bundle_id: str
    trained_as_of: date | None
    """Score cutoff of its snapshot; of bundles that do not say, the end of their newest label."""
    training_row_count: int | None
    promise: Promise


@dataclasses.dataclass(frozen=True, kw_only=True)
class CutoffRows:
    """Rows of ``churn_examples`` at one cutoff."""

    cutoff_date: date
    matures_on: date
    """When the horizon ends."""
    num_rows: int
    num_mature: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class DriftFacts:
    """The champion's rows of ``churn_score_drift`` at its newest cutoff."""

    cutoff_date: date
    errors: dict[str, tuple[str, ...]]
    """Type of subject -> subjects whose severity is error, sorted."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bin:
    """A calibration bin."""

    num_users: int
    mean_probability: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class OutcomeFacts:
    """How the champion did on one matured cutoff that it had not learned from."""

    cutoff_date: date
    num_users: int
    num_churned: int
    auroc: float | None
    log_loss: float
    log_loss_gain_error: float | None
    """Standard error of the gain over the base rate; None where users are not known singly."""
    calibration_error: float
    bins: Sequence[Bin]

    @property
    def base_rate(self) -> float:
        """Share that churned."""
        return self.num_churned / self.num_users


@dataclasses.dataclass(frozen=True, kw_only=True)
class Unknown:
    """Why something cannot be said."""

    reason: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class WarehouseFacts:
    """What the warehouse says today."""

    score_cutoff: date
    cutoffs: Sequence[CutoffRows]
    """Those whose labels the champion's snapshot did not know, oldest first."""
    drift: DriftFacts | Unknown
    outcomes: Sequence[OutcomeFacts] | Unknown
    """Newest cutoff first."""
