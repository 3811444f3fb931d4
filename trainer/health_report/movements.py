"""Who moved since the last cutoff and why, and how shadows differ from the champion."""

from __future__ import annotations

from typing import Any

from trainer.health_report.absence import BUILD, absence
from trainer.health_report.tables import HealthTables

EFFECTS = ("behaviour", "model", "calibration")


def mover_facts(tables: HealthTables) -> dict[str, Any]:
    """Return causes, tiers from and to, and the largest changes if users may be told."""
    causes = [dict(row) for row in tables.rows("mover_causes")]
    missing = absence(
        tables,
        "mover_causes",
        "Nobody's score has changed: changes are told from the second cutoff on.",
        BUILD,
        needs_champion=True,
    )
    effects = next((dict(row) for row in tables.rows("mover_effects")), {})
    return {
        "absence": missing,
        "cutoff_date": causes[0]["cutoff_date"] if causes else None,
        "previous_cutoff_date": causes[0]["previous_cutoff_date"] if causes else None,
        **{
            name: sum(row[name] for row in causes)
            for name in ("user_count", "up_count", "down_count", "large_count")
        },
        "causes": causes,
        "mean_effects": {name: effects.get(name) for name in EFFECTS},
        "tiers": tier_matrix(tables),
        "are_users_told": "movers" in tables.results,
        "movers": [dict(row) for row in tables.rows("movers")],
    }


def tier_matrix(tables: HealthTables) -> dict[str, Any]:
    """Return how many users went from which tier to which, the riskiest tier first."""
    counts = {
        (row["previous_tier"], row["tier"]): row["user_count"]
        for row in tables.rows("tier_moves")
        if row["previous_tier"] is not None and row["tier"] is not None
    }
    order = [row["risk_tier"] for row in tables.rows("tier_order")]
    named = {tier for pair in counts for tier in pair}
    names = [tier for tier in order if tier in named]
    matrix = [[counts.get((before, after), 0) for after in names] for before in names]
    places = range(len(names))
    return {
        "names": names,
        "rows": matrix,
        "up_count": sum(matrix[before][after] for before in places for after in range(before)),
        "down_count": sum(
            matrix[before][after] for before in places for after in places if after > before
        ),
    }


def shadow_facts(tables: HealthTables) -> dict[str, Any]:
    """Return each shadow's newest comparison with the champion."""
    newest: dict[str, dict[str, Any]] = {}
    cutoffs: dict[str, int] = {}
    for row in tables.rows("shadows"):
        newest[row["bundle_id"]] = dict(row)
        cutoffs[row["bundle_id"]] = cutoffs.get(row["bundle_id"], 0) + 1
    judged = {
        row["bundle_id"]: dict(row)
        for row in tables.rows("performance")
        if row["bundle_id"] in newest and row["is_out_of_time"]
    }
    rows = [
        {**row, "cutoff_count": cutoffs[name], "performance": judged.get(name)}
        for name, row in newest.items()
    ]
    rows.sort(key=lambda row: (row["cutoff_date"], row["bundle_id"]), reverse=True)
    return {
        "absence": absence(
            tables,
            "shadows",
            "No shadow has scored. A candidate scores beside the champion, without anybody using "
            "its scores, once it is made one:",
            "churn-train models promote BUNDLE --stage shadow",
        ),
        "rows": rows,
    }
