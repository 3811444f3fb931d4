"""What goes into the model: drift against training, and how many events arrive."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

from trainer.health_report.absence import BUILD, absence
from trainer.health_report.models import champion_facts, days_between
from trainer.health_report.tables import HealthTables
from trainer.health_report.texts import number

SEVERITIES = ("error", "warn", "ok")
NUM_RECENT_DAYS = 7
SUBJECT_TITLES = {"feature": "feature", "token": "word in the text", "score": "score"}


def drift_facts(tables: HealthTables) -> dict[str, Any]:
    """Return the subjects of the champion at its newest cutoff, worst first, with histories."""
    champion = champion_facts(tables)
    rows = [
        row
        for row in tables.rows("drift")
        if champion is None or row["bundle_id"] == champion["bundle_id"]
    ]
    missing = absence(
        tables,
        "drift",
        "Drift is measured with the first scores of a model whose bundle holds the histograms "
        "of its training.",
        BUILD,
        needs_champion=True,
    )
    if missing is None and not rows:
        missing = {
            "text": "There is no drift of the champion: its bundle holds no histograms of its "
            "training, or it has not scored yet. A model packaged by this release has them.",
            "run": "churn-train run",
        }
    newest = max((row["cutoff_date"] for row in rows), default=None)
    histories: dict[tuple[str, str], list[tuple[date, float]]] = {}
    for row in rows:
        value = number(row["population_stability_index"])
        if value is not None:
            key = (row["subject_type"], row["subject"])
            histories.setdefault(key, []).append((row["cutoff_date"], value))
    subjects = [
        {
            **row,
            "title": SUBJECT_TITLES.get(row["subject_type"], row["subject_type"]),
            "description": tables.descriptions.get(row["subject"], ""),
            "history": histories.get((row["subject_type"], row["subject"]), []),
        }
        for row in rows
        if row["cutoff_date"] == newest
    ]
    subjects.sort(key=_worst_first)
    counts = {
        severity: sum(1 for row in subjects if row["severity"] == severity)
        for severity in SEVERITIES
    }
    return {
        "absence": missing,
        "cutoff_date": newest,
        "bundle_id": subjects[0]["bundle_id"] if subjects else None,
        "counts": counts,
        "subjects": subjects,
    }


def score_facts(tables: HealthTables) -> dict[str, Any]:
    """Return the scores now: how many, how high, which tiers, their distribution."""
    current = next((dict(row) for row in tables.rows("current")), {})
    before = tables.rows("previous_scores")
    return {
        "absence": absence(tables, "tiers", "Nobody has a score yet.", BUILD, needs_champion=True),
        **{name: current.get(name) for name in ("cutoff_date", "mean_probability", "scored_at")},
        "user_count": current.get("user_count", 0),
        "flagged_count": current.get("flagged_count", 0),
        "age_days": days_between(current.get("cutoff_date"), tables.as_of),
        "tiers": [dict(row) for row in tables.rows("tiers")],
        "bins": _shares(tables.rows("current_scores")),
        "previous_bins": _shares(before),
        "previous_cutoff_date": before[0]["cutoff_date"] if before else None,
    }


def volume_facts(tables: HealthTables) -> dict[str, Any]:
    """Return events per type and day with what was expected, and how old the newest is."""
    by_type: dict[str, list[dict[str, Any]]] = {}
    for row in tables.rows("volumes"):
        by_type.setdefault(str(row["event_type"]), []).append(dict(row))
    newest_day = max((days[-1]["event_date"] for days in by_type.values()), default=None)
    types = []
    for name, days in by_type.items():
        odd = [one for one in days if one["severity"] not in ("ok", None)]
        recent = [
            one
            for one in odd
            if newest_day is not None and (newest_day - one["event_date"]).days < NUM_RECENT_DAYS
        ]
        types.append(
            {
                "event_type": name,
                "newest": days[-1],
                "severity": days[-1]["severity"] or "ok",
                "odd_count": len(odd),
                "recent_odd_count": len(recent),
                "odd_days": [one["event_date"] for one in odd][-5:],
                "days": days,
            }
        )
    types.sort(key=_oddest_first)
    bounds = next(iter(tables.rows("bounds")), {})
    end = bounds.get("data_end_date")
    newest_event = end - timedelta(days=1) if end else bounds.get("newest_event_date")
    newest_event = newest_event or max(
        (row["event_date"] for row in tables.rows("volumes") if row["event_count"]), default=None
    )
    return {
        "absence": absence(tables, "volumes", "No day of events has been counted yet.", BUILD),
        "newest_date": newest_day,
        "newest_complete_date": newest_event,
        "age_days": days_between(newest_event, tables.as_of),
        "types": types,
    }


def unscorable_facts(tables: HealthTables) -> dict[str, Any]:
    """Return how many users have no score, and why."""
    total = next(iter(tables.rows("unscorable_users")), {"user_count": None})
    return {
        "user_count": total["user_count"],
        "reasons": [dict(row) for row in tables.rows("unscorable")],
    }


def _worst_first(row: dict[str, Any]) -> tuple[int, bool, float, str]:
    """Order subjects: severity, the score before all else, then the stability index."""
    index = number(row["population_stability_index"])
    return (
        _rank(row["severity"]),
        row["subject_type"] != "score",
        -(index if index is not None else -1.0),
        str(row["subject"]),
    )


def _oddest_first(one: dict[str, Any]) -> tuple[int, int, float, str]:
    """Order event types: severity of the newest day, odd days of the week, how many come."""
    events = number(one["newest"]["event_count"]) or 0.0
    return _rank(one["severity"]), -int(one["recent_odd_count"]), -events, str(one["event_type"])


def _rank(severity: Any) -> int:
    """Place a severity, the worst first."""
    return SEVERITIES.index(severity) if severity in SEVERITIES else len(SEVERITIES)


def _shares(rows: tuple[dict[str, Any], ...]) -> list[dict[str, Any]]:
    """Return counts of bins with their share of all."""
    total = sum(row["user_count"] for row in rows) or 1
    return [
        {"bin": row["bin"], "user_count": row["user_count"], "share": row["user_count"] / total}
        for row in rows
    ]
