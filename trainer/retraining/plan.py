"""The plan: every check, whether a new model is due, and when the next one will be."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import date, timedelta
from typing import Any

from churn_udf.models_location import ModelsDir
from trainer.data.warehouse import Warehouse
from trainer.retraining.champion import (
    UnusableChampionError,
    newest_training,
    read_champion_facts,
)
from trainer.retraining.checks import (
    Check,
    Measure,
    check_age,
    check_decay,
    check_drift,
    check_labels,
    labels_due_date,
)
from trainer.retraining.config import RetrainingConfig
from trainer.retraining.inputs import ChampionFacts, WarehouseFacts
from trainer.retraining.reading import read_score_cutoff_date, read_warehouse


@dataclasses.dataclass(frozen=True, kw_only=True)
class RetrainingPlan:
    """What the checks found."""

    score_cutoff: date
    """The present one: today, in the time of the data."""
    champion_id: str | None
    checks: tuple[Check, ...]
    waiting_until: date | None = None
    """First score cutoff at which a model that is due is trained, where the last training is too
    near; None where nothing waits."""
    newest_bundle_id: str | None = None
    """The model that was trained last, champion or not."""
    due_dates: dict[str, date | None] = dataclasses.field(default_factory=dict)
    """Check -> first score cutoff at which it will be due if nothing but time passes; None where
    that cannot be told."""

    @property
    def reasons(self) -> tuple[str, ...]:
        """Names of the checks that ask for a new model, also while it has to wait."""
        return tuple(check.name for check in self.checks if check.is_due)

    @property
    def is_due(self) -> bool:
        """Whether to train now."""
        return bool(self.reasons) and self.waiting_until is None

    @property
    def next_due_date(self) -> date | None:
        """First score cutoff at which a model is due, as far as can be told; None if it cannot."""
        if self.reasons:
            return self.waiting_until or self.score_cutoff
        return min((day for day in self.due_dates.values() if day is not None), default=None)

    @property
    def sentence(self) -> str:
        """The verdict in words."""
        reasons = ", ".join(self.reasons)
        if self.is_due:
            return f"a new model is due: {reasons}"
        if self.reasons:
            return (
                f"a new model is due ({reasons}), but {self.newest_bundle_id} was trained only "
                f"lately: waiting until cutoff {self.waiting_until} (retraining.min_days_between)"
            )
        told = f"; due at cutoff {self.next_due_date}" if self.next_due_date else ""
        return f"no new model is due: {self.champion_id} goes on{told}"

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as JSON-ready mapping."""
        return {
            "is_due": self.is_due,
            "reasons": list(self.reasons),
            "checks": [check.to_dict() for check in self.checks],
            "message": self.sentence,
            "champion_id": self.champion_id,
            "score_cutoff_date": self.score_cutoff.isoformat(),
            "waiting_until": _iso(self.waiting_until),
            "next_due_date": _iso(self.next_due_date),
            "due_dates": {name: _iso(day) for name, day in self.due_dates.items()},
        }


def plan(warehouse: Warehouse, config: RetrainingConfig, models_dir: ModelsDir) -> RetrainingPlan:
    """Find out whether a new model is due; nothing is written.

    Args:
        warehouse: Where the tables are; the file is open for a few aggregates only.
        config: Limits.
        models_dir: Where the models are.

    Raises:
        WarehouseError: No such database, it is locked, or the tables that training needs are
            missing or were built with other settings.
        BundleIntegrityError: The registry is damaged.
        StorageError: The models location cannot be read.
    """
    context = warehouse.context
    names = tuple(feature.name for feature in context.features)
    try:
        champion = read_champion_facts(models_dir, context.model_settings, names)
    except UnusableChampionError as error:
        measure = Measure(
            name=error.reason, value=None, limit=None, is_due=True, message=str(error)
        )
        return RetrainingPlan(
            score_cutoff=read_score_cutoff_date(warehouse),
            champion_id=error.bundle_id,
            checks=(Check(name=error.reason, measures=(measure,)),),
        )
    facts = read_warehouse(warehouse, champion)
    newest = newest_training(models_dir)
    return make_plan(champion, facts, newest, config)


def make_plan(
    champion: ChampionFacts,
    facts: WarehouseFacts,
    newest: tuple[str, date] | None,
    config: RetrainingConfig,
) -> RetrainingPlan:
    """Make all checks of a champion that can score.

    Args:
        champion: Its facts.
        facts: What the warehouse says.
        newest: The model trained last and the score cutoff it was trained for.
        config: Limits.
    """
    labels = facts.cutoffs, facts.score_cutoff, champion.training_row_count, config
    checks = (
        check_age(champion.trained_as_of, facts.score_cutoff, config.max_age_days),
        check_labels(*labels),
        check_drift(facts.drift, config),
        check_decay(facts.outcomes, champion, config),
    )
    earliest = None if newest is None else newest[1] + timedelta(days=config.min_days_between)
    has_to_wait = earliest is not None and earliest > facts.score_cutoff
    due_dates = {
        "age": _age_due_date(champion.trained_as_of, config.max_age_days),
        "labels": labels_due_date(*labels),
    }
    return RetrainingPlan(
        score_cutoff=facts.score_cutoff,
        champion_id=champion.bundle_id,
        checks=checks,
        waiting_until=earliest if has_to_wait and _any_due(checks) else None,
        newest_bundle_id=newest[0] if newest else None,
        due_dates={name: _not_before(day, earliest) for name, day in due_dates.items()},
    )


def _age_due_date(trained_as_of: date | None, max_days: int | None) -> date | None:
    """Return when the champion will be too old."""
    if trained_as_of is None or max_days is None:
        return None
    return trained_as_of + timedelta(days=max_days)


def _not_before(day: date | None, earliest: date | None) -> date | None:
    """Return the later of two dates; none stays none."""
    if day is None or earliest is None:
        return day
    return max(day, earliest)


def _any_due(checks: Sequence[Check]) -> bool:
    """Return whether any check asks for a new model."""
    return any(check.is_due for check in checks)


def _iso(day: date | None) -> str | None:
    """Return a date as text."""
    return None if day is None else day.isoformat()
