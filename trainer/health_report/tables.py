"""What the report reads: small results of the warehouse's tables, in one short connection.

A table may be missing, empty or of another release: then its results say so and hold no rows, and
a column that is not there is null.
"""

from __future__ import annotations

import dataclasses
import string
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from trainer.health_report.queries import MOVER_QUERIES, QUERIES, TABLES

if TYPE_CHECKING:
    from trainer.data.warehouse import Warehouse

READ, NOT_BUILT, UNKNOWN_TABLE, OTHER_RELEASE = "read", "not_built", "unknown", "other_release"
NOW = "now"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """Rows of one query, or why there are none."""

    rows: tuple[dict[str, Any], ...] = ()
    state: str = READ
    """``read``, ``not_built``, ``unknown`` (to the dbt package) or ``other_release``."""
    table: str = ""
    """The table that the state is about."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class HealthTables:
    """All that the report is made of."""

    results: Mapping[str, Result]
    """By name of the query."""
    table_states: Mapping[str, str]
    as_of: datetime
    """UTC; what ages are counted to."""
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """dbt vars without prefix."""
    descriptions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Of features, by name."""
    source: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Project, target, versions."""
    registry_champion_id: str | None = None
    """As the models location says; the warehouse says what it was at the last build."""
    registry_problem: str | None = None
    """Why the models location could not be read, or null."""

    def rows(self, name: str) -> tuple[dict[str, Any], ...]:
        """Return the rows of a query; none where its table is missing."""
        return self.results[name].rows if name in self.results else ()

    def setting_days(self, name: str, default: int = 0) -> int:
        """Return a setting in days."""
        value = self.settings.get(name)
        return value if isinstance(value, int) and not isinstance(value, bool) else default


def read_health(warehouse: Warehouse, models_dir: Any, *, users: int = 20) -> HealthTables:
    """Read everything that the report shows.

    Args:
        warehouse: Where the tables are.
        models_dir: The models location, for who is champion now.
        users: Movers to list; 0 reads no user id.

    Raises:
        WarehouseError: No warehouse there, it is in use, or dbt cannot compile the project.
    """
    context = warehouse.context
    with warehouse.cursor() as cursor:
        states, sources = describe_tables(cursor, context.relations)
        results = run_queries(cursor, states, sources, users=users)
    champion_id, problem = read_registry_champion(models_dir)
    kept = ("project", "target", "dbt_version")
    return HealthTables(
        results=results,
        table_states=states,
        as_of=as_of(context.settings.get("as_of")),
        settings=context.settings,
        descriptions={feature.name: feature.description for feature in context.features},
        source={name: context.document[name] for name in kept if name in context.document},
        registry_champion_id=champion_id,
        registry_problem=problem,
    )


def describe_tables(
    cursor: Any, relations: Mapping[str, str]
) -> tuple[dict[str, str], dict[str, str]]:
    """Return the state of each table, and SQL that selects the columns the report knows.

    Args:
        cursor: Of DuckDB.
        relations: Model name -> quoted relation.
    """
    import duckdb

    states: dict[str, str] = {}
    sources: dict[str, str] = {}
    for table, (required, optional) in TABLES.items():
        if table not in relations:
            states[table] = UNKNOWN_TABLE
            continue
        try:
            described = cursor.execute(f"describe select * from {relations[table]}").fetchall()
        except duckdb.CatalogException:
            states[table] = NOT_BUILT
            continue
        found = {str(row[0]) for row in described}
        if not found >= set(required):
            states[table] = OTHER_RELEASE
            continue
        columns = [
            f'"{name}"' if name in found else f'null as "{name}"' for name in (*required, *optional)
        ]
        states[table] = READ
        sources[table] = f"(select {', '.join(columns)} from {relations[table]})"
    return states, sources


def run_queries(
    cursor: Any, states: Mapping[str, str], sources: Mapping[str, str], *, users: int
) -> dict[str, Result]:
    """Return the results of all queries whose tables are there.

    Args:
        cursor: Of DuckDB.
        states: Of the tables.
        sources: Table -> SQL in its place.
        users: Rows of the queries that tell users; 0 leaves those out.
    """
    results = {}
    for name, query in {**QUERIES, **(MOVER_QUERIES if users else {})}.items():
        needed = [field for _, field, _, _ in string.Formatter().parse(query) if field in TABLES]
        missing = next((table for table in needed if table not in sources), None)
        if missing is not None:
            results[name] = Result(state=states[missing], table=missing)
            continue
        cursor.execute(query.format(**sources, users=int(users)))
        names = [column[0] for column in cursor.description]
        rows = tuple(dict(zip(names, row, strict=True)) for row in cursor.fetchall())
        results[name] = Result(rows=rows, table=needed[0])
    return results


def as_of(stated: Any) -> datetime:
    """Return the clock of the report: the var ``churn__as_of``, or now, in UTC."""
    text = str(stated or NOW).strip()
    if text != NOW:
        try:
            moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
        except ValueError:
            pass
        else:
            return moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)
    return datetime.now(timezone.utc).replace(microsecond=0)


def read_registry_champion(models_dir: Any) -> tuple[str | None, str | None]:
    """Return the champion of a models location, and what is wrong with the location."""
    from churn_udf.errors import ChurnError
    from churn_udf.registry import read_registry

    if models_dir is None:
        return None, None
    try:
        return read_registry(models_dir).champion_id, None
    except ChurnError as error:
        return None, str(error)
