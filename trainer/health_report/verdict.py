"""Is the model healthy: one level, one sentence, and the reasons it rests on.

Each rule looks at one thing and says fine, look, act, or that it is not known; the worst rule
decides. The bounds that are not settings of dbt or of retraining stand in ``Limits``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from trainer.health_report import data_rules, service_rules
from trainer.health_report.reasons import ACT, FINE, LOOK, NUM_NAMED, UNKNOWN, Limits, Reason
from trainer.health_report.tables import HealthTables
from trainer.health_report.texts import joined, plural

HEALTHY = "healthy"
HEADLINES = {HEALTHY: "Healthy", LOOK: "Look at this", ACT: "Act now"}


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """The page's first sentence and its reasons."""

    level: str
    """``healthy``, ``look`` or ``act``."""
    headline: str
    reasons: tuple[Reason, ...]


def judge(
    tables: HealthTables,
    facts: Mapping[str, Any],
    limits: Limits | None = None,
) -> Verdict:
    """Judge the model by what the warehouse says.

    Args:
        tables: What was read.
        facts: Of all sections; see ``health_facts``.
        limits: The bounds.
    """
    limits = limits or Limits()
    reasons = [
        service_rules.champion(tables, facts),
        service_rules.scores(tables, facts["scores"], facts["champion"]),
        data_rules.data(facts["volumes"], tables.setting_days("max_data_age_days"), limits),
        data_rules.volumes(facts["volumes"]),
        data_rules.drift(facts["drift"]),
        data_rules.decay(tables, facts["champion"], limits),
        data_rules.calibration(tables, facts["champion"], limits),
        data_rules.late_labels(facts["outcomes"], limits),
        service_rules.unscorable(facts, limits),
        service_rules.refused(facts),
        service_rules.retraining(facts["retraining"]),
    ]
    found = tuple(reason for reason in reasons if reason is not None)
    level = next((name for name in (ACT, LOOK) if any(r.level == name for r in found)), HEALTHY)
    return Verdict(level=level, headline=_headline(level, found), reasons=_ordered(found))


def _headline(level: str, reasons: Sequence[Reason]) -> str:
    """Say the level and what it is for."""
    if level == HEALTHY:
        unknown = {reason.name for reason in reasons if reason.level == UNKNOWN}
        known = []
        if "decay" not in unknown:
            known.append("past scores turned out as good as the test promised")
        if "drift" not in unknown:
            known.append("what goes into the model looks as it did in training")
        said = joined(known) or "nothing that could be looked at calls for action"
        return f"{HEADLINES[level]}: {said}."
    named = [reason.short or reason.text for reason in reasons if reason.level == level]
    more = len(named) - NUM_NAMED
    shown = named[:NUM_NAMED] + ([f"and {plural(more, 'more reason')}"] if more > 0 else [])
    return HEADLINES[level] + ": " + "; ".join(shown) + "."


def _ordered(reasons: Sequence[Reason]) -> tuple[Reason, ...]:
    """Put what matters most first; the rest stays in the page's order."""
    order = (ACT, LOOK, UNKNOWN, FINE)
    return tuple(sorted(reasons, key=lambda reason: order.index(reason.level)))
