"""How past scores turned out: rows by cutoff of whoever was in service, the newest in words."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from datetime import date, timedelta
from typing import Any

from trainer.health_report.absence import BUILD, absence
from trainer.health_report.models import champion_at
from trainer.health_report.tables import HealthTables
from trainer.health_report.texts import number


def outcome_facts(tables: HealthTables) -> dict[str, Any]:
    """Return performance by cutoff, the bins of the newest, and labels that changed."""
    rows = service_rows(tables)
    newest = rows[-1] if rows else None
    bins = []
    if newest is not None:
        key = (newest["bundle_id"], newest["cutoff_date"])
        bins = [row for row in tables.rows("bins") if (row["bundle_id"], row["cutoff_date"]) == key]
    late = [dict(row) for row in tables.rows("late_labels")]
    return {
        "absence": absence(
            tables, "performance", _nothing_matured(tables), BUILD, needs_champion=True
        ),
        "rows": rows,
        "newest": newest,
        "bins": bins,
        "bins_absence": absence(tables, "bins", "The bins are filled with the first outcomes."),
        "late_labels": late,
        "late_absence": absence(tables, "late_labels", "No label has changed since it matured."),
        "champion_changes": _champion_changes(rows),
    }


def base_rate_facts(tables: HealthTables) -> dict[str, Any]:
    """Return expected and observed base rates by cutoff, of whoever was in service."""
    rows = _of_service(tables, tables.rows("base_rates"))
    mature = [row for row in rows if number(row["observed_base_rate"]) is not None]
    return {
        "absence": absence(
            tables,
            "base_rates",
            "There are no base rates before the first scores.",
            BUILD,
            needs_champion=True,
        ),
        "rows": rows,
        "newest": rows[-1] if rows else None,
        "newest_mature": mature[-1] if mature else None,
    }


def service_rows(tables: HealthTables) -> list[dict[str, Any]]:
    """Return one row of performance per cutoff, oldest first: the model then in service."""
    return _of_service(tables, tables.rows("performance"))


def champion_row(tables: HealthTables, bundle_id: str | None) -> dict[str, Any] | None:
    """Return the newest performance of a model that is known to be out of time."""
    rows = [
        dict(row)
        for row in tables.rows("performance")
        if row["bundle_id"] == bundle_id and row["is_out_of_time"]
    ]
    return rows[-1] if rows else None


def matures_on(tables: HealthTables, bundle_id: str | None = None) -> date | None:
    """Return when the next scores can be judged: the end of the oldest open horizon."""
    span = timedelta(days=tables.setting_days("gap_days") + tables.setting_days("horizon_days"))
    judged = {row["cutoff_date"] for row in tables.rows("performance")}
    waiting = [
        row["cutoff_date"]
        for row in tables.rows("scored")
        if row["cutoff_date"] not in judged and bundle_id in (None, row["bundle_id"])
    ]
    return min(waiting) + span if waiting and span else None


def auroc_error(auroc: float, churned: int, stayed: int) -> float:
    """Return the standard error of an AUROC (Hanley and McNeil, 1982).

    Args:
        auroc: [0, 1].
        churned: Users who churned, at least 1.
        stayed: Users who stayed, at least 1.
    """
    two, square = auroc / (2.0 - auroc), auroc * auroc
    both = 2.0 * square / (1.0 + auroc)
    variance = auroc * (1.0 - auroc)
    variance += (churned - 1) * (two - square) + (stayed - 1) * (both - square)
    return math.sqrt(max(variance, 0.0) / (churned * stayed))


def _of_service(tables: HealthTables, rows: tuple[dict[str, Any], ...]) -> list[dict[str, Any]]:
    """Return one row per cutoff, oldest first: of the champion then, else of the champion now."""
    ever = {entry["bundle_id"] for entry in tables.rows("log") if entry["to_stage"] == "champion"}
    current = {row["bundle_id"] for row in tables.rows("models") if row["is_champion"]}
    by_cutoff: dict[date, list[dict[str, Any]]] = {}
    for row in rows:
        by_cutoff.setdefault(row["cutoff_date"], []).append(dict(row))
    chosen = []
    for cutoff, found in sorted(by_cutoff.items()):
        then = champion_at(tables, cutoff)

        def rank(row: Mapping[str, Any], then: str | None = then) -> tuple[bool, bool, bool, str]:
            name = row["bundle_id"]
            return name != then, name not in current, name not in ever, name

        chosen.append(min(found, key=rank))
    return chosen


def _champion_changes(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the cutoffs at which another model than before was in service."""
    pairs = itertools.pairwise(rows)
    return [
        {"cutoff_date": later["cutoff_date"], "bundle_id": later["bundle_id"]}
        for earlier, later in pairs
        if later["bundle_id"] != earlier["bundle_id"]
    ]


def _nothing_matured(tables: HealthTables) -> str:
    """Say when the first scores can be judged."""
    first = matures_on(tables)
    if first is None:
        return "No score has been given yet, so none can be judged."
    return (
        "No score can be judged yet: the days that the first ones speak of end on "
        f"{first.isoformat()}, and a build on data that reaches there judges them."
    )
