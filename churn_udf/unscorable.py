"""Tells rows that can be scored from those that cannot, and why.

A bad row never touches its neighbours: it is taken out before the model sees it, or its
result is taken out after.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from churn_udf.contracts.unscorable import (
    INFINITE_FEATURE,
    INVALID_VALUE,
    NULL_INPUT_HASH,
    NULL_TEXT,
    NULL_USER_ID,
    SCORE_NOT_FINITE,
    UNSCORABLE_SCHEMA,
)
from churn_udf.errors import ScoringError

BoolArray = npt.NDArray[np.bool_]

MAX_VALUE_CHARS = 100
"""A longer value is cut: enough to recognise it, and no place for whole texts."""

TEXT_ALLOWED = "text; '' where there is none"
FEATURE_ALLOWED = "a finite number, or null where unknown"
KEY_ALLOWED = "text that is not null"
RESULT_ALLOWED = "a finite number"


class UnscorableRows:
    """Collects the reasons of one batch, at most one entry per row and reason.

    Args:
        num_rows: Rows of the batch.
    """

    def __init__(self, num_rows: int) -> None:
        self._is_listed = np.zeros(num_rows, dtype=np.bool_)
        self._found: dict[tuple[int, str], list[_Cell]] = {}

    def add(
        self,
        reason: str,
        column: str,
        rows: Iterable[int],
        value_of: Callable[[int], object],
        allowed: str,
    ) -> None:
        """List cells of one column.

        Args:
            reason: One of ``UNSCORABLE_REASONS``.
            column: The column at fault.
            rows: Row numbers in the batch.
            value_of: The cell's value by row number.
            allowed: What the cell may hold.
        """
        for row in map(int, rows):
            self._is_listed[row] = True
            cell = _Cell(column, _text_of(value_of(row)), allowed)
            self._found.setdefault((row, reason), []).append(cell)

    @property
    def scorable_rows(self) -> npt.NDArray[np.int64]:
        """(G,) numbers of the rows that are not listed, ascending."""
        return np.flatnonzero(~self._is_listed)

    def to_record_batch(self, hashes: pa.Array) -> pa.RecordBatch:
        """Return ``UNSCORABLE_SCHEMA`` rows in the order of the batch.

        Args:
            hashes: (B,) input hashes, null where unknown.
        """
        entries = sorted(self._found.items(), key=lambda entry: entry[0])
        rows = [row for (row, _), _ in entries]
        columns = [
            pa.array(rows, pa.int64()),
            hashes.take(pa.array(rows, pa.int64())),
            pa.array([reason for (_, reason), _ in entries], pa.string()),
            pa.array([cells[0].column for _, cells in entries], pa.string()),
            pa.array([cells[0].value for _, cells in entries], pa.string()),
            pa.array([_sentence(cells) for _, cells in entries], pa.string()),
        ]
        return pa.RecordBatch.from_arrays(columns, schema=UNSCORABLE_SCHEMA)


@dataclasses.dataclass(frozen=True)
class _Cell:
    """A cell at fault."""

    column: str
    value: str | None
    allowed: str


def read_columns(
    batch: pa.RecordBatch, schema: pa.Schema
) -> tuple[dict[str, pa.Array], UnscorableRows]:
    """Read the input columns with the contract's types and list rows with unusable cells.

    A column of another type is cast; cells that cannot be are listed and read as null.

    Args:
        batch: Columns of ``schema`` (see ``input_schema``) in any order. Of others only
            ``user_id`` is looked at: where it is there, it may not be null.
        schema: Texts, and features as float64.

    Returns:
        The (B,) columns by name, and the rows not to score so far: infinite features are for
        ``list_infinite`` to find, once the features are a matrix.

    Raises:
        ScoringError: A column is missing, or of a type no value of which can be read.
    """
    listed = UnscorableRows(batch.num_rows)
    read = {field.name: _cast(batch, field, listed) for field in schema}
    columns = {name: column for name, (column, _) in read.items()}
    if "user_id" in batch.schema.names:
        users = _null_rows(batch.column("user_id"))
        listed.add(NULL_USER_ID, "user_id", users, _null, KEY_ALLOWED)
    for name, (column, flaws) in read.items():
        if pa.types.is_floating(column.type):
            continue
        # What could not be read is listed as that, not as the null it was read as.
        nulls = np.setdiff1d(_null_rows(column), flaws)
        if name == "input_hash":
            listed.add(NULL_INPUT_HASH, name, nulls, _null, KEY_ALLOWED)
        else:
            listed.add(NULL_TEXT, name, nulls, _null, TEXT_ALLOWED)
    return columns, listed


def list_infinite(
    listed: UnscorableRows, features: npt.NDArray[np.float64], names: Sequence[str]
) -> None:
    """List rows with an infinite feature.

    Args:
        listed: Gets the rows.
        features: (B, F) in the order of ``names``, NaN where unknown.
        names: Feature columns.
    """
    is_infinite = np.isinf(features)
    for index in np.flatnonzero(is_infinite.any(axis=0)).tolist():
        values = features[:, index]
        rows = np.flatnonzero(is_infinite[:, index])
        listed.add(INFINITE_FEATURE, names[index], rows, values.__getitem__, FEATURE_ALLOWED)


def list_not_finite(
    listed: UnscorableRows,
    rows: npt.NDArray[np.int64],
    results: Mapping[str, npt.NDArray[np.float64]],
) -> BoolArray:
    """List rows whose results are not finite.

    Args:
        listed: Gets the rows.
        rows: (G,) numbers in the batch of the rows that were scored.
        results: (G,) values by the name of the score column they become.

    Returns:
        (G,) whether all results of the row are finite.
    """
    is_finite = np.ones(len(rows), dtype=np.bool_)
    for name, values in results.items():
        is_good = np.isfinite(values)
        is_finite &= is_good
        by_row = dict(zip(rows[~is_good].tolist(), values[~is_good].tolist(), strict=True))
        listed.add(SCORE_NOT_FINITE, name, by_row, by_row.__getitem__, RESULT_ALLOWED)
    return is_finite


def _cast(
    batch: pa.RecordBatch, field: pa.Field, listed: UnscorableRows
) -> tuple[pa.Array, list[int]]:
    """Return one column with the contract's type and the cells that cannot be read, listed."""
    if field.name not in batch.schema.names:
        raise ScoringError(
            f"scoring input lacks column {field.name!r}; it has {batch.schema.names}; "
            "run `dbt build`"
        )
    column = batch.column(field.name)
    try:
        cast, flaws = _cast_cells(column, field.type)
    except pa.ArrowNotImplementedError as error:
        raise ScoringError(
            f"scoring input column {field.name!r} is {column.type}; allowed: {field.type} ({error})"
        ) from error
    allowed = FEATURE_ALLOWED if pa.types.is_floating(field.type) else TEXT_ALLOWED
    listed.add(INVALID_VALUE, field.name, flaws, lambda row: _cell(column, row), allowed)
    return cast, flaws


def _cast_cells(column: pa.Array, to: pa.DataType) -> tuple[pa.Array, list[int]]:
    """Cast as a whole, else by halves, so that a few bad cells cost a few casts."""
    try:
        return column.cast(to), []
    except pa.ArrowInvalid:
        if len(column) == 1:
            return pa.nulls(1, to), [0]
    middle = len(column) // 2
    left, left_flaws = _cast_cells(column[:middle], to)
    right, right_flaws = _cast_cells(column[middle:], to)
    return pa.concat_arrays([left, right]), [*left_flaws, *(middle + row for row in right_flaws)]


def _null_rows(column: pa.Array) -> npt.NDArray[np.int64]:
    """Return the numbers of the null rows."""
    return np.flatnonzero(pc.is_null(column).to_numpy(zero_copy_only=False))


def _null(row: int) -> None:
    """Return the value of a null cell."""


def _cell(column: pa.Array, row: int) -> object:
    """Return a cell as a Python value."""
    return column[row].as_py()


def _text_of(value: object) -> str | None:
    """Return a value as short text."""
    if value is None:
        return None
    text = str(value)
    return text if len(text) <= MAX_VALUE_CHARS else text[:MAX_VALUE_CHARS] + "..."


def _sentence(cells: Sequence[_Cell]) -> str:
    """Return what was wrong with a row for one reason."""
    first, others = cells[0], len(cells) - 1
    value = "null" if first.value is None else first.value
    more = f" (and {others} more column{'s' if others > 1 else ''})" if others else ""
    return f"column '{first.column}': got {value}{more}; allowed: {first.allowed}"
