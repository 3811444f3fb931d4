"""Models in the report: the champion, its age, the registry, its log, who was refused."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import date, datetime, timezone
from typing import Any

from trainer.health_report.absence import absence
from trainer.health_report.tables import HealthTables

NO_MODEL = "No model has been packaged yet."
TRAIN = "churn-train run"
PASSED_NAMES = ("is_passed", "passed", "is_met", "ok")
"""How a check of the gate may say that it holds."""
NUM_LOG_SHOWN = 12
WAITING = "newer than the champion and a candidate still: the gate refused it, or nobody asked it"


def model_facts(tables: HealthTables) -> dict[str, Any]:
    """Return the models, the log and who was refused."""
    models = [dict(row) for row in tables.rows("models")]
    log = [dict(row) for row in tables.rows("log")]
    return {
        "absence": absence(tables, "models", NO_MODEL, TRAIN),
        "log_absence": absence(
            tables, "log", "No model has been moved yet: the first promotion is the first entry."
        ),
        "models": models,
        "log": log,
        "refused": refused_candidates(models, log),
    }


def champion_facts(tables: HealthTables) -> dict[str, Any] | None:
    """Return the champion of the last build with its age in days; None before the first."""
    row = next((row for row in tables.rows("models") if row["is_champion"]), None)
    if row is None:
        return None
    made = row["created_at"] or row["stage_since"]
    judged = next(  # a rollback is not judged: what was said before it stands
        (
            entry
            for entry in tables.rows("log")
            if entry["bundle_id"] == row["bundle_id"]
            and entry["to_stage"] == "champion"
            and (entry["is_override"] or checks_of(entry))
        ),
        None,
    )
    age = days_between(made, tables.as_of)
    return {
        **row,
        "age_days": None if age is None or age < 0 else age,  # a replay is before it was made
        "is_override": bool(judged and judged["is_override"]),
    }


def refused_candidates(
    models: Sequence[Mapping[str, Any]], log: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Return models that were not let into service, newest first.

    Those of which the log says that the gate refused them, unless somebody forced them; and
    candidates newer than the champion, of which nobody has logged why they wait.
    """
    champion = next((model for model in models if model["is_champion"]), None)
    since = champion["created_at"] if champion else None
    found = []
    for model in models:
        if model["stage"] in ("champion", "shadow") or model["is_champion"]:
            continue
        entries = [entry for entry in log if entry["bundle_id"] == model["bundle_id"]]
        judged = next((entry for entry in entries if checks_of(entry)), None)
        if judged is not None and judged["is_override"]:
            continue
        failed = [check for check in checks_of(judged) if check_holds(check) is False]
        said = str(model.get("stage_reason") or "")
        is_refused = bool(failed) or said.lower().startswith(("refused", "not promoted"))
        made = model.get("created_at")
        is_waiting = model["stage"] == "candidate" and bool(since and made and made > since)
        if is_refused or is_waiting:
            found.append(
                {
                    "bundle_id": model["bundle_id"],
                    "is_refused": is_refused,
                    "reason": said or (WAITING if is_waiting else ""),
                    "failed_checks": failed,
                    "refused_at": (judged or {}).get("moved_at") or made or model["stage_since"],
                }
            )
    return sorted(found, key=lambda one: str(one["refused_at"] or ""), reverse=True)


def checks_of(entry: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """Return what the gate checked before a move; empty where it does not say."""
    try:
        checks = json.loads((entry or {}).get("checks_json") or "[]")
    except (TypeError, ValueError):
        return []
    if not isinstance(checks, list):
        return []
    return [check for check in checks if isinstance(check, dict)]


def check_holds(check: Mapping[str, Any]) -> bool | None:
    """Return whether a check of the gate holds; None where it does not say."""
    return next((bool(check[name]) for name in PASSED_NAMES if check.get(name) is not None), None)


def days_between(earlier: Any, later: datetime) -> int | None:
    """Return whole days from a date or time (UTC) to a moment; None where unknown."""
    if isinstance(earlier, datetime):
        aware = earlier if earlier.tzinfo else earlier.replace(tzinfo=timezone.utc)
        return (later - aware).days
    if isinstance(earlier, date):
        return (later.date() - earlier).days
    return None


def champion_at(tables: HealthTables, cutoff: date) -> str | None:
    """Return the last that was made champion by the end of a cutoff's day, as far as is known."""
    moves = [
        (entry["log_sequence"], entry["bundle_id"])
        for entry in tables.rows("log")
        if entry["to_stage"] == "champion"
        and isinstance(entry["moved_at"], datetime)
        and entry["moved_at"].date() <= cutoff
    ]
    return max(moves)[1] if moves else None
