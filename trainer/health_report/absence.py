"""Why a part of the report is empty, and what to run."""

from __future__ import annotations

from typing import TypedDict

from trainer.health_report.tables import NOT_BUILT, OTHER_RELEASE, UNKNOWN_TABLE, HealthTables


class Absence(TypedDict):
    """Stands where a part of the report would."""

    text: str
    run: str | None


BUILD = "dbt build"
FIRST_MODEL = "churn-train run && dbt build"


def absence(
    tables: HealthTables,
    query: str,
    empty: str,
    run: str | None = None,
    *,
    needs_champion: bool = False,
) -> Absence | None:
    """Return why a query has no rows; None where it has some.

    Args:
        tables: What was read.
        query: Its name.
        empty: What to say of a table that is there and empty.
        run: What to run then.
        needs_champion: Whether it stays empty until a model scores.
    """
    result = tables.results.get(query)
    if result is None:
        return Absence(text="Left out.", run=None)
    table = result.table
    if result.state == UNKNOWN_TABLE:
        text = f"The dbt package that was installed has no table {table}: it is of another release."
        return Absence(
            text=f"{text} Install the dbt and the Python package of the same release, then build.",
            run=BUILD,
        )
    if result.state == NOT_BUILT:
        return Absence(text=f"The table {table} has not been built yet.", run=BUILD)
    if result.state == OTHER_RELEASE:
        return Absence(
            text=f"The table {table} was built by another release and lacks columns.", run=BUILD
        )
    if result.rows:
        return None
    has_champion = any(row["is_champion"] for row in tables.rows("models"))
    return Absence(text=empty, run=FIRST_MODEL if needs_champion and not has_champion else run)
