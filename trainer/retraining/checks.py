"""The checks: plain facts in, a value beside its limit and a sentence out."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from datetime import date, timedelta
from typing import Any

from trainer.retraining.config import RetrainingConfig
from trainer.retraining.decay import (
    auroc_error,
    chance_calibration_error,
    critical_value,
    entropy,
)
from trainer.retraining.inputs import (
    ChampionFacts,
    CutoffRows,
    DriftFacts,
    Estimate,
    OutcomeFacts,
    Unknown,
)

AGE, LABELS, DRIFT, DECAY = "age", "labels", "drift", "decay"
LEAST_OF_A_CLASS = 20
"""Churners, and stayers, without which outcomes tell nothing."""
NAMED_SUBJECTS = 5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measure:
    """One number of a check beside its limit."""

    name: str
    value: float | None
    """None where it is not known, or not asked."""
    limit: float | None
    """None where the setting is off."""
    is_due: bool
    message: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Check:
    """A reason to train, and whether it holds."""

    name: str
    """What ``reasons`` calls it."""
    measures: tuple[Measure, ...]
    """One or more."""

    @property
    def is_due(self) -> bool:
        """Whether any of its limits is passed."""
        return any(measure.is_due for measure in self.measures)

    @property
    def leading(self) -> Measure:
        """The measure that says most: one that is due, else one that is known and has a limit."""
        return min(
            self.measures,
            key=lambda item: (not item.is_due, item.value is None, item.limit is None),
        )

    @property
    def message(self) -> str:
        """What all its measures say."""
        return "; ".join(dict.fromkeys(measure.message for measure in self.measures))

    def to_dict(self) -> dict[str, Any]:
        """Return the check as JSON-ready mapping; value and limit are the leading measure's."""
        return {
            "name": self.name,
            "value": self.leading.value,
            "limit": self.leading.limit,
            "is_due": self.is_due,
            "message": self.message,
            "measures": [dataclasses.asdict(measure) for measure in self.measures],
        }


def check_age(trained_as_of: date | None, score_cutoff: date, max_days: int | None) -> Check:
    """Say whether the champion is too old.

    Args:
        trained_as_of: Score cutoff that the champion was trained for; None if unknown.
        score_cutoff: The present one.
        max_days: From this age on it is due; None is off.
    """
    if trained_as_of is None:
        return _unknown(AGE, max_days, "the champion does not say when it was trained")
    days = max(0, (score_cutoff - trained_as_of).days)
    is_due = max_days is not None and days >= max_days
    told = f"trained for cutoff {trained_as_of}, {_days(days)} ago"
    if max_days is not None and not is_due:
        told += f"; due at {trained_as_of + timedelta(days=max_days)}"
    return _single(AGE, days, max_days, is_due, told)


def check_labels(
    cutoffs: Sequence[CutoffRows],
    score_cutoff: date,
    training_row_count: int | None,
    config: RetrainingConfig,
) -> Check:
    """Say whether enough labels have matured since the champion was trained.

    Args:
        cutoffs: Those whose horizon ended after the champion's snapshot.
        score_cutoff: The present one; labels known later do not count.
        training_row_count: Rows that the champion was fitted on; None if unknown.
        config: Limits.
    """
    count = new_labels(cutoffs, score_cutoff)
    least = config.min_new_labels
    counted = Measure(
        name=LABELS,
        value=count,
        limit=least,
        is_due=least is not None and count >= least,
        message=f"{count:,} labels have matured since training",
    )
    limit = config.min_new_label_share
    if not training_row_count:
        told = "the champion does not say how many rows it was fitted on"
        share = Measure(name="label_share", value=None, limit=limit, is_due=False, message=told)
    else:
        found = count / training_row_count
        share = Measure(
            name="label_share",
            value=found,
            limit=limit,
            is_due=limit is not None and found >= limit,
            message=f"{found:.1%} of the {training_row_count:,} rows it was fitted on",
        )
    return Check(name=LABELS, measures=(counted, share))


def new_labels(cutoffs: Iterable[CutoffRows], score_cutoff: date) -> int:
    """Return how many labels are known by the score cutoff."""
    return sum(item.num_mature for item in cutoffs if item.matures_on <= score_cutoff)


def labels_due_date(
    cutoffs: Sequence[CutoffRows],
    score_cutoff: date,
    training_row_count: int | None,
    config: RetrainingConfig,
) -> date | None:
    """Return when enough labels of the cutoffs built so far will have matured; None if never."""
    wanted = [] if config.min_new_labels is None else [float(config.min_new_labels)]
    if config.min_new_label_share is not None and training_row_count:
        wanted.append(config.min_new_label_share * training_row_count)
    if not wanted:
        return None
    count = new_labels(cutoffs, score_cutoff)
    if count >= min(wanted):
        return score_cutoff
    for item in sorted(cutoffs, key=lambda item: item.matures_on):
        if item.matures_on <= score_cutoff:
            continue
        count += item.num_rows
        if count >= min(wanted):
            return item.matures_on
    return None


def check_drift(drift: DriftFacts | Unknown, config: RetrainingConfig) -> Check:
    """Say whether too much has drifted since the champion's training.

    Args:
        drift: Subjects in error at the champion's newest cutoff.
        config: How many may be.
    """
    limits = {
        "feature": config.max_drifted_features,
        "token": config.max_drifted_tokens,
        "score": config.max_drifted_scores,
    }
    if isinstance(drift, Unknown):
        return Check(
            name=DRIFT,
            measures=tuple(
                _unknown_measure(f"drifted_{kind}s", limit, drift.reason)
                for kind, limit in limits.items()
            ),
        )
    measures = []
    for kind, limit in limits.items():
        subjects = drift.errors.get(kind, ())
        if kind == "score":
            told = f"the score {'has drifted' if subjects else 'has not drifted'}"
        else:
            told = f"{len(subjects)} {kind}{'' if len(subjects) == 1 else 's'} drifted"
            told += f" ({_named(subjects)})" if subjects else ""
        measures.append(
            Measure(
                name=f"drifted_{kind}s",
                value=len(subjects),
                limit=limit,
                is_due=limit is not None and len(subjects) > limit,
                message=f"{told} at cutoff {drift.cutoff_date}",
            )
        )
    return Check(name=DRIFT, measures=tuple(measures))


def check_decay(
    outcomes: Sequence[OutcomeFacts] | Unknown, champion: ChampionFacts, config: RetrainingConfig
) -> Check:
    """Say whether the champion has become worse than its test promised, beyond chance.

    The newest matured cutoff with enough users is looked at. A loss is due when it is larger than
    its limit and larger than ``critical_value`` standard errors of test and outcome together.

    Args:
        outcomes: Cutoffs that the champion had not learned from, newest first.
        champion: Its promise.
        config: Limits and confidence.
    """
    limits = {
        "auroc_decay": config.max_auroc_decay,
        "log_loss_decay": config.max_log_loss_decay,
        "calibration_decay": config.max_calibration_decay,
    }
    chosen = outcomes if isinstance(outcomes, Unknown) else _newest_usable(outcomes, config)
    if isinstance(chosen, Unknown):
        return Check(
            name=DECAY,
            measures=tuple(
                _unknown_measure(name, limit, chosen.reason) for name, limit in limits.items()
            ),
        )
    found = {
        "auroc_decay": _auroc_loss(chosen, champion.promise.auroc),
        "log_loss_decay": _gain_loss(chosen, champion.promise.log_loss_gain),
        "calibration_decay": _calibration_loss(chosen, champion.promise.calibration_error),
    }
    titles = ("AUROC", "log loss gain", "calibration error")
    where = f"at cutoff {chosen.cutoff_date} ({chosen.num_users:,} users)"
    measures = []
    for (name, loss), title in zip(found.items(), titles, strict=True):
        if isinstance(loss, Unknown):
            measures.append(_unknown_measure(name, limits[name], f"{title}: {loss.reason}"))
            continue
        limit = limits[name]
        by_chance = critical_value(config.confidence) * loss.error
        is_due = limit is not None and loss.worse_by > limit and loss.beyond_chance > by_chance
        measures.append(
            Measure(
                name=name,
                value=loss.worse_by,
                limit=limit,
                is_due=is_due,
                message=f"{title} {loss.observed:.3f} {where}, {loss.promised:.3f} in its test: "
                f"{_worse(loss.worse_by)}, by chance up to {by_chance + loss.chance_shift:.3f}",
            )
        )
    return Check(name=DECAY, measures=tuple(measures))


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Loss:
    """What was promised, what came, and the standard error of the difference."""

    promised: float
    observed: float
    worse_by: float
    """Positive: worse than promised."""
    error: float
    chance_shift: float = 0.0
    """What even a perfect model would be worse by, on average."""

    @property
    def beyond_chance(self) -> float:
        """What is left after what a perfect model shows too."""
        return self.worse_by - self.chance_shift


def _newest_usable(
    outcomes: Sequence[OutcomeFacts], config: RetrainingConfig
) -> OutcomeFacts | Unknown:
    """Return the newest cutoff with enough users of both kinds."""
    for item in outcomes:
        fewest = min(item.num_churned, item.num_users - item.num_churned)
        if item.num_users >= config.min_outcome_users and fewest >= LEAST_OF_A_CLASS:
            return item
    if not outcomes:
        return Unknown(reason="no score of the champion has matured yet")
    return Unknown(
        reason=f"no matured cutoff has {config.min_outcome_users} users, {LEAST_OF_A_CLASS} of "
        "whom churned and as many stayed"
    )


def _auroc_loss(item: OutcomeFacts, promise: Estimate | None) -> _Loss | Unknown:
    """Return what AUROC lost."""
    if promise is None or item.auroc is None:
        return Unknown(reason="its test does not say")
    error = auroc_error(item.auroc, item.num_churned, item.num_users - item.num_churned)
    return _Loss(
        promised=promise.value,
        observed=item.auroc,
        worse_by=promise.value - item.auroc,
        error=_both(error, promise.error),
    )


def _gain_loss(item: OutcomeFacts, promise: Estimate | None) -> _Loss | Unknown:
    """Return what the log loss gained less over the base rate."""
    if promise is None or item.log_loss_gain_error is None:
        return Unknown(reason="its test or its outcomes do not say")
    gain = entropy(item.base_rate) - item.log_loss
    return _Loss(
        promised=promise.value,
        observed=gain,
        worse_by=promise.value - gain,
        error=_both(item.log_loss_gain_error, promise.error),
    )


def _calibration_loss(item: OutcomeFacts, promise: Estimate | None) -> _Loss | Unknown:
    """Return by how much the calibration error grew."""
    if promise is None or not item.bins:
        return Unknown(reason="its test or its outcomes do not say")
    by_chance, spread = chance_calibration_error(item.bins)
    return _Loss(
        promised=promise.value,
        observed=item.calibration_error,
        worse_by=item.calibration_error - promise.value,
        error=_both(spread, promise.error),
        chance_shift=max(0.0, by_chance - promise.value),
    )


def _both(one: float, other: float) -> float:
    """Return the standard error of a difference."""
    return float((one**2 + other**2) ** 0.5)


def _worse(value: float) -> str:
    """Return a loss in words."""
    return f"{abs(value):.3f} {'worse' if value > 0 else 'better'}"


def _named(subjects: Sequence[str]) -> str:
    """Return the first subjects."""
    rest = len(subjects) - NAMED_SUBJECTS
    return ", ".join(subjects[:NAMED_SUBJECTS]) + (f" and {rest} more" if rest > 0 else "")


def _days(count: int) -> str:
    """Return a number of days in words."""
    return f"{count} day{'' if count == 1 else 's'}"


def _single(name: str, value: float, limit: float | None, is_due: bool, message: str) -> Check:
    """Return a check of one measure."""
    measure = Measure(name=name, value=value, limit=limit, is_due=is_due, message=message)
    return Check(name=name, measures=(measure,))


def _unknown_measure(name: str, limit: float | None, reason: str) -> Measure:
    """Return a measure that cannot be taken."""
    return Measure(name=name, value=None, limit=limit, is_due=False, message=f"unknown: {reason}")


def _unknown(name: str, limit: float | None, reason: str) -> Check:
    """Return a check that cannot be made."""
    return Check(name=name, measures=(_unknown_measure(name, limit, reason),))
