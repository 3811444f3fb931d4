"""The durable table of inputs that cannot be scored, beside the score cache.

It is keyed by content and model like the cache: what could not be scored is not tried again
until its input or the champion changes. It holds what is so now and nothing else: rows of
other models and of inputs that are gone are dropped by every run, so that the value of a
user who was erased does not stay behind.
"""

from __future__ import annotations

import dataclasses
from datetime import date, datetime
from typing import Any

import pyarrow as pa

from churn_udf.contracts.unscorable import NULL_USER_ID, UNSCORABLE_SCHEMA
from churn_udf.errors import ScoringError
from churn_udf.unscorable import KEY_ALLOWED

UNSCORABLE_INPUT_SCHEMA = pa.schema(
    [
        *(field for field in UNSCORABLE_SCHEMA if field.name != "row_index"),
        pa.field("bundle_id", pa.string(), nullable=False),
        pa.field("noted_at", pa.timestamp("us"), nullable=False),
    ]
)
"""One row per input, model and reason. One row with a null ``input_hash`` stands for all users
whose input has no hash. ``noted_at`` is UTC."""

SQL_TYPES = {
    "input_hash": "varchar",
    "reason": "varchar",
    "column_name": "varchar",
    "value": "varchar",
    "detail": "varchar",
    "bundle_id": "varchar",
    "noted_at": "timestamp",
}
NAMED_IN_ERROR = 5
"""Users that the error of a failing build names."""
_CHUNK = "churn_unscorable_chunk"


@dataclasses.dataclass(frozen=True)
class UnscorableCount:
    """How the users at the score cutoff divide.

    Attributes:
        unscorable: Users without a score.
        total: All users.
        by_reason: Users per reason code, most first; a user may count under several.
    """

    unscorable: int
    total: int
    by_reason: tuple[tuple[str, int], ...]

    def __str__(self) -> str:
        reasons = ", ".join(f"{number:,} {reason}" for reason, number in self.by_reason)
        return f"{self.unscorable:,} of {self.total:,} rows could not be scored ({reasons})"


class UnscorableInputs:
    """Reads and writes the table on DuckDB; every statement commits by itself.

    Args:
        session: A DuckDB connection; only cursors of it are used.
        relation: The table, quoted.
        examples: The relation with the inputs, quoted.
        cutoff_date: The score cutoff: only its inputs count.
    """

    def __init__(
        self, session: Any, *, relation: str, examples: str, cutoff_date: date | None
    ) -> None:
        self._relation = relation
        self._cursor = session.cursor()
        day = "null" if cutoff_date is None else f"'{cutoff_date.isoformat()}'"
        self._inputs = f"{examples} where cutoff_date = cast({day} as date)"
        self._create_table()

    @property
    def relation(self) -> str:
        """The table, quoted."""
        return self._relation

    def _create_table(self) -> None:
        """Create the table; one of another release's layout is dropped, a run fills it anew."""
        columns = ", ".join(
            f"{field.name} {SQL_TYPES[field.name]}{'' if field.nullable else ' not null'}"
            for field in UNSCORABLE_INPUT_SCHEMA
        )
        create = f"create table if not exists {self._relation} ({columns})"
        self._cursor.execute(create)
        described = self._cursor.execute(f"describe {self._relation}").fetchall()
        if {row[0]: row[1].lower() for row in described} != SQL_TYPES:
            self._cursor.execute(f"drop table {self._relation}")
            self._cursor.execute(create)

    def clear(self) -> None:
        """Forget everything, so that all is tried again."""
        self._cursor.execute(f"delete from {self._relation}")

    def insert(self, unscorable: pa.RecordBatch, *, bundle_id: str, noted_at: datetime) -> None:
        """Append the listed rows of a chunk and commit.

        Args:
            unscorable: ``UNSCORABLE_SCHEMA`` rows.
            bundle_id: The model that could not score them.
            noted_at: UTC without zone.
        """
        num_rows = unscorable.num_rows
        if not num_rows:
            return
        columns = {
            **{name: unscorable.column(name) for name in UNSCORABLE_SCHEMA.names},
            "bundle_id": pa.array([bundle_id] * num_rows, pa.string()),
            "noted_at": pa.array([noted_at] * num_rows, pa.timestamp("us")),
        }
        names = UNSCORABLE_INPUT_SCHEMA.names
        chunk = pa.table([columns[name] for name in names], schema=UNSCORABLE_INPUT_SCHEMA)
        self._cursor.register(_CHUNK, chunk)
        try:
            listed = ", ".join(names)
            self._cursor.execute(
                f"insert into {self._relation} ({listed}) select {listed} from {_CHUNK}"
            )
        finally:
            self._cursor.unregister(_CHUNK)

    def keep_current(self, bundle_id: str | None = None) -> None:
        """Drop rows of inputs that are not at the score cutoff any more, and of other models.

        Args:
            bundle_id: The model whose rows may stay; those of all if not given.
        """
        if not self._cursor.execute(f"select 1 from {self._relation} limit 1").fetchall():
            return  # as nearly always: spares reading the inputs
        self._cursor.execute(
            f"""
            delete from {self._relation} as listed
            where listed.bundle_id <> coalesce(?, listed.bundle_id) or not exists (
                select 1 from (select input_hash from {self._inputs}) as inputs
                where inputs.input_hash is not distinct from listed.input_hash
            )
            """,
            [bundle_id],
        )

    def count(self, bundle_id: str | None = None) -> UnscorableCount | None:
        """Count the users at the score cutoff who have no score; none where all have one.

        Args:
            bundle_id: The model in question; without one, what the table holds of other models
                counts too: call ``keep_current`` first.
        """
        rows = self._cursor.execute(
            f"""
            {self._users_sql()}
            select
                reason,
                count(*),
                (select count(distinct row_number) from users),
                (select count(*) from inputs)
            from users
            group by 1
            order by 2 desc, 1
            """,
            [bundle_id],
        ).fetchall()
        if not rows:
            return None
        by_reason = tuple((reason, int(number)) for reason, number, _, _ in rows)
        return UnscorableCount(unscorable=rows[0][2], total=rows[0][3], by_reason=by_reason)

    def raise_error(self, counted: UnscorableCount) -> None:
        """Fail the build.

        Raises:
            ScoringError: Always; says how many, names the first, and what to do.
        """
        first = self._cursor.execute(
            f"{self._users_sql()} select user_id, reason, detail from users "
            f"order by user_id nulls last, reason limit {NAMED_IN_ERROR}",
            [None],
        ).fetchall()
        named = "; ".join(f"user {user!r}: {reason}, {detail}" for user, reason, detail in first)
        raise ScoringError(
            f"{counted}. First: {named}. All are in {self._relation}; the others were scored and "
            "are kept, but nothing is published. Correct their inputs and run `dbt build`, or "
            "publish the rest with the var churn__unscorable_rows: warn"
        )

    def read(self) -> pa.RecordBatchReader:
        """Stream the table."""
        names = ", ".join(UNSCORABLE_INPUT_SCHEMA.names)
        rows = self._cursor.sql(f"select {names} from {self._relation} order by all")
        return rows.to_arrow_reader()

    def _users_sql(self) -> str:
        """Return CTEs: ``inputs``, and ``users`` without a score, a row per input row and reason.

        A row of nobody is not scored whatever its content, and told apart by that alone: so
        does churn_unscorable. Takes one parameter, the model in question; null for any.
        """
        return f"""
            with inputs as materialized (
                select user_id, input_hash, row_number() over () as row_number
                from {self._inputs}
            ),
            users as (
                select inputs.*, listed.reason, listed.detail
                from inputs
                inner join {self._relation} as listed
                    on inputs.input_hash is not distinct from listed.input_hash
                    and listed.bundle_id = coalesce(?, listed.bundle_id)
                where inputs.user_id is not null
                union all
                select *, '{NULL_USER_ID}', 'column ''user_id'': got null; allowed: {KEY_ALLOWED}'
                from inputs
                where user_id is null
            )
        """
