"""All facts of the page, which ``--json`` prints and the template writes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from trainer.health_report.inputs import drift_facts, score_facts, unscorable_facts, volume_facts
from trainer.health_report.models import champion_facts, model_facts
from trainer.health_report.movements import mover_facts, shadow_facts
from trainer.health_report.outcomes import base_rate_facts, matures_on, outcome_facts
from trainer.health_report.reasons import Limits
from trainer.health_report.tables import HealthTables
from trainer.health_report.verdict import judge

REPORT_VERSION = 1
EMPTY_PLAN = {
    "is_due": False,
    "reasons": [],
    "checks": [],
    "message": None,
    "next_due_date": None,
}
EMPTY_CHECK = {"name": "", "value": None, "limit": None, "is_due": False, "message": None}


def health_facts(
    tables: HealthTables,
    *,
    retraining: Mapping[str, Any] | None = None,
    retraining_problem: str | None = None,
    limits: Limits | None = None,
) -> dict[str, Any]:
    """Return the facts of all sections, the verdict first.

    Args:
        tables: What was read.
        retraining: The plan, with ``is_due``, ``reasons`` and ``checks`` (``name``, ``value``,
            ``limit``, ``is_due``, ``message``); None where it is not known.
        retraining_problem: Why it is not known.
        limits: The bounds of the verdict.
    """
    facts: dict[str, Any] = {
        "report_version": REPORT_VERSION,
        "as_of": tables.as_of,
        "source": dict(tables.source),
        "horizon_days": tables.setting_days("horizon_days"),
        "gap_days": tables.setting_days("gap_days"),
        "champion": champion_facts(tables),
        "retraining": None if retraining is None else _whole_plan(retraining),
        "retraining_problem": retraining_problem,
        "matures_on": matures_on(tables),
        "outcomes": outcome_facts(tables),
        "base_rates": base_rate_facts(tables),
        "scores": score_facts(tables),
        "unscorable": unscorable_facts(tables),
        "drift": drift_facts(tables),
        "volumes": volume_facts(tables),
        "movers": mover_facts(tables),
        "shadows": shadow_facts(tables),
        "models": model_facts(tables),
        "tables": dict(tables.table_states),
    }
    return {"verdict": dataclasses.asdict(judge(tables, facts, limits)), **facts}


def _whole_plan(plan: Mapping[str, Any]) -> dict[str, Any]:
    """Return a plan in which nothing that the page writes is missing."""
    checks = [{**EMPTY_CHECK, **check} for check in plan.get("checks", ())]
    return {**EMPTY_PLAN, **plan, "checks": checks}
