"""The durable table of scores by content: one row per ``(input_hash, bundle_id)``.

Each insert commits by itself, so a killed run keeps what it scored.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date, datetime
from typing import Any

import pyarrow as pa

from churn_udf.contracts.scores import SCORE_SCHEMA, input_schema

CACHE_SCHEMA = pa.schema(
    [
        *SCORE_SCHEMA,
        pa.field("bundle_id", pa.string(), nullable=False),
        pa.field("scored_at", pa.timestamp("us"), nullable=False),
    ]
)
"""A score, the model that gave it, and when (UTC)."""

SQL_TYPES = {
    "input_hash": "varchar",
    "churn_logit": "double",
    "churn_probability": "double",
    "risk_tier": "varchar",
    "is_flagged": "boolean",
    "top_reason": "varchar",
    "reason_groups": "varchar[]",
    "reason_effects": "double[]",
    "bundle_id": "varchar",
    "scored_at": "timestamp",
}
READ_ROWS = 8_192
"""Rows of a batch read from the warehouse, texts and features included."""
BATCH_KEYS = 131_072
"""Inputs joined to their texts and features at once: bounds what the join holds in memory."""
_CHUNK = "churn_scored_chunk"
_WANTED = "churn_inputs_to_score"


class ScoreCache:
    """Reads and writes one bundle's scores on DuckDB.

    Every piece of work has a cursor of its own, outside the transaction that dbt may hold
    open on the session; a cursor whose result is still being read can do nothing else.

    Args:
        session: A DuckDB connection.
        relation: The cache table, quoted.
        examples: The relation with the inputs, quoted.
        cutoff_date: The score cutoff: only its inputs count. A constant, because DuckDB
            pushes it into every table under ``examples``, which it cannot do with a join.
        bundle_id: Whose scores.
        unscorable: The table of inputs that cannot be scored (see ``UnscorableInputs``), quoted.
        among: A subquery with the ``input_hash`` of the only inputs that count; all if not given.
    """

    def __init__(
        self,
        session: Any,
        *,
        relation: str,
        examples: str,
        cutoff_date: date | None,
        bundle_id: str,
        unscorable: str,
        among: str | None = None,
    ) -> None:
        self._relation = relation
        self._examples = examples
        # A date's text is digits and dashes; null is no cutoff, and so no input.
        self._is_input = f"cutoff_date = cast({_date_literal(cutoff_date)} as date)"
        self._is_wanted = "true" if among is None else f"input_hash in {among}"
        self._is_missing = (
            f"coalesce(input_hash, '') not in (select input_hash from {relation} "
            f"where bundle_id = {_literal(bundle_id)} union all "
            f"select coalesce(input_hash, '') from {unscorable} "
            f"where bundle_id = {_literal(bundle_id)})"
        )
        self._bundle_id = bundle_id
        self._reader = session.cursor()
        self._writer = session.cursor()
        self._create_table()

    def _create_table(self) -> None:
        """Create the table; one of another release's layout is dropped, it is only a cache."""
        columns = ", ".join(
            f"{field.name} {SQL_TYPES[field.name]}{'' if field.nullable else ' not null'}"
            for field in CACHE_SCHEMA
        )
        create = f"create table if not exists {self._relation} ({columns})"
        self._writer.execute(create)
        described = self._writer.execute(f"describe {self._relation}").fetchall()
        if {row[0]: row[1].lower() for row in described} != SQL_TYPES:
            self._writer.execute(f"drop table {self._relation}")
            self._writer.execute(create)

    def clear(self) -> None:
        """Forget this bundle's scores."""
        self._writer.execute(f"delete from {self._relation} where bundle_id = ?", [self._bundle_id])

    def plan(self) -> tuple[int, int]:
        """Note which inputs still need a score.

        Returns:
            Distinct inputs at the score cutoff, and those among them that have no score and are
            not known to be unscorable. All inputs without a hash count as one; a row of nobody
            is none.
        """
        # Keys only: the wide rows are joined to them a batch at a time.
        self._reader.execute(
            f"""
            create or replace temporary table {_WANTED} as
            with inputs as (
                select input_hash, min(user_id) as user_id, {self._is_missing} as is_missing
                from {self._examples}
                where {self._is_input} and user_id is not null and {self._is_wanted}
                group by input_hash
            )
            select
                input_hash,
                user_id,
                case when is_missing then (
                    row_number() over (partition by is_missing order by user_id) - 1
                ) // {BATCH_KEYS} end as batch_number
            from inputs
            """
        )
        counts = self._reader.execute(f"select count(*), count(batch_number) from {_WANTED}")
        total, missing = counts.fetchall()[0]
        return int(total), int(missing)

    def count_missing(self) -> int:
        """Return how many distinct inputs have neither a score nor a reason now."""
        counted = self._reader.execute(
            f"select count(*) from (select distinct input_hash from {self._examples} "
            f"where {self._is_input} and user_id is not null and {self._is_wanted}) as inputs "
            f"where {self._is_missing}"
        )
        return int(counted.fetchall()[0][0])

    def read_missing(self, feature_names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Stream the inputs that ``plan`` noted, each once.

        Args:
            feature_names: Feature columns, in model order.
        """
        columns = ", ".join(
            f"examples.{_quoted(name)}" for name in input_schema(feature_names).names
        )
        batches = self._reader.execute(f"select max(batch_number) from {_WANTED}").fetchall()
        for batch_number in range(-1 if batches[0][0] is None else batches[0][0] + 1):
            rows = self._reader.sql(
                f"""
                select {columns}
                from {self._examples} as examples
                inner join {_WANTED} as wanted
                    on examples.user_id = wanted.user_id
                    and examples.input_hash is not distinct from wanted.input_hash
                where examples.{self._is_input} and wanted.batch_number = {batch_number}
                """
            )
            yield from rows.to_arrow_reader(READ_ROWS)

    def insert(self, scores: pa.RecordBatch | pa.Table, *, scored_at: datetime) -> None:
        """Append scores and commit.

        Args:
            scores: ``SCORE_SCHEMA`` rows.
            scored_at: UTC without zone.
        """
        constants = (
            pa.repeat(pa.scalar(value, CACHE_SCHEMA.field(name).type), scores.num_rows)
            for name, value in (("bundle_id", self._bundle_id), ("scored_at", scored_at))
        )
        chunk = pa.Table.from_arrays([*scores.columns, *constants], schema=CACHE_SCHEMA)
        self._writer.register(_CHUNK, chunk)
        try:
            names = ", ".join(CACHE_SCHEMA.names)
            self._writer.execute(
                f"insert into {self._relation} ({names}) select {names} from {_CHUNK}"
            )
        finally:
            self._writer.unregister(_CHUNK)

    def read_current(self, *others: str) -> pa.RecordBatchReader:
        """Stream this bundle's scores of all inputs at the score cutoff.

        Args:
            others: Ids of more bundles whose scores to stream.
        """
        names = ", ".join(CACHE_SCHEMA.names)
        bundle_ids = ", ".join(map(_literal, (self._bundle_id, *others)))
        rows = self._reader.sql(
            f"""
            select {names}
            from {self._relation}
            where bundle_id in ({bundle_ids}) and input_hash in (
                select input_hash from {self._examples} where {self._is_input}
            )
            """
        )
        return rows.to_arrow_reader(READ_ROWS)


def _quoted(name: str) -> str:
    """Return a quoted identifier."""
    return '"' + name.replace('"', '""') + '"'


def _literal(text: str) -> str:
    """Return a SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def _date_literal(value: date | None) -> str:
    """Return a SQL literal."""
    return "null" if value is None else f"'{value.isoformat()}'"
