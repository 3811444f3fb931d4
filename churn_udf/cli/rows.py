"""Rows of any source made rows of the model, and scored: each gets a score or a reason."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from churn_udf.bundle_store import Bundle
from churn_udf.contracts.scores import input_schema
from churn_udf.errors import InputError
from churn_udf.scoring import Scorer

TEXT_COLUMNS = ("behavior_text", "review_text_recent")
MAX_NAMED = 12
"""So many columns are named in a message."""
EXPORT_HINT = (
    "export churn_examples as it is, for example with DuckDB: copy (from churn_examples where "
    "is_score_cutoff) to 'examples.parquet'"
)


NOT_A_ROW = "not_a_row"
"""A line that is no row at all; beside ``UNSCORABLE_REASONS``."""


class Refusal(NamedTuple):
    """Why a row has no score."""

    reason: str
    """A stable code."""
    detail: str
    """A sentence with the column, its value and what is allowed."""


@dataclasses.dataclass(frozen=True)
class ScoredRows:
    """What became of B rows: S of them have a score, the others a refusal."""

    positions: npt.NDArray[np.int64]
    """(S,) which rows of the batch were scored, ascending."""
    scores: pa.RecordBatch
    """(S,) ``SCORE_SCHEMA``; ``input_hash`` is the position as text."""
    refusals: dict[int, Refusal]
    """Position -> why it has no score."""


def input_columns(schema: pa.Schema, bundle: Bundle, name: str) -> list[str]:
    """Return the columns of a source that the model reads, checked.

    Args:
        schema: Schema of the source.
        bundle: What scores.
        name: Name of the source, for messages.

    Raises:
        InputError: Columns are missing, there twice or of a type that cannot be meant.
    """
    needed = [*TEXT_COLUMNS, *bundle.feature_names]
    missing = [column for column in needed if column not in schema.names]
    doubled = [column for column in needed if schema.names.count(column) > 1]
    found = {name: schema.field(name).type for name in needed if schema.names.count(name) == 1}
    wrong = [
        f"{column} is {kind} (allowed: {'text' if column in TEXT_COLUMNS else 'number'})"
        for column, kind in found.items()
        if not (_is_text(kind) if column in TEXT_COLUMNS else _is_number(kind))
    ]
    problems = [
        f"{what} {', '.join(names[:MAX_NAMED])}"
        + f" and {len(names) - MAX_NAMED} more" * (len(names) > MAX_NAMED)
        for what, names in (
            ("lacks columns", missing),
            ("has twice", doubled),
            ("has other types:", wrong),
        )
        if names
    ]
    if problems:
        raise InputError(
            f"{name} {'; '.join(problems)}. Bundle {bundle.bundle_id} needs "
            f"{', '.join(TEXT_COLUMNS)} and its {len(bundle.feature_names)} features; {EXPORT_HINT}"
        )
    return needed


def _is_text(kind: pa.DataType) -> bool:
    """Return whether a column of this type holds text."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    kinds = pa.types
    return bool(
        kinds.is_string(kind)
        or kinds.is_large_string(kind)
        or kinds.is_string_view(kind)
        or kinds.is_null(kind)
    )


def _is_number(kind: pa.DataType) -> bool:
    """Return whether a column of this type holds numbers; text that looks like one does not."""
    kinds = pa.types
    return bool(
        kinds.is_integer(kind)
        or kinds.is_floating(kind)
        or kinds.is_decimal(kind)
        or kinds.is_boolean(kind)
        or kinds.is_null(kind)
    )


def model_input(batch: pa.RecordBatch, feature_names: Sequence[str]) -> pa.RecordBatch:
    """Return the rows with the model's columns and types; a null review is no review.

    Args:
        batch: (B,) rows with the columns of ``input_columns``.
        feature_names: Features in model order.

    Returns:
        (B,) rows of ``input_schema``; ``input_hash`` is the position as text, by which
        results find their row, whatever the source calls it.

    Raises:
        InputError: Text that is not UTF-8.
    """
    schema = input_schema(feature_names)
    columns = [pa.array(np.arange(batch.num_rows)).cast(pa.string())]
    for field in list(schema)[1:]:
        try:
            # Not "safe": a count beyond 2^53 is as good a number rounded.
            column = batch.column(field.name).cast(field.type, safe=False)
            if field.name in TEXT_COLUMNS:
                column.validate(full=True)
        except pa.ArrowInvalid as error:
            raise InputError(
                f"column {field.name!r} is damaged ({error}); allowed: {field.type}, text in "
                f"UTF-8; {EXPORT_HINT}"
            ) from error
        columns.append(pc.fill_null(column, "") if field.name == TEXT_COLUMNS[1] else column)
    return pa.RecordBatch.from_arrays(columns, names=schema.names)


def score_rows(scorer: Scorer, batch: pa.RecordBatch) -> ScoredRows:
    """Score what can be scored, and say of each other row why it cannot.

    Args:
        scorer: The model.
        batch: (B,) rows of ``model_input``.
    """
    scores, unscorable = scorer.score_or_list(batch)
    positions = pc.cast(scores.column("input_hash"), pa.int64()).to_numpy(zero_copy_only=False)
    refusals: dict[int, Refusal] = {}
    for row, reason, detail in zip(
        *(unscorable.column(name).to_pylist() for name in ("row_index", "reason", "detail")),
        strict=True,
    ):
        refusals.setdefault(row, Refusal(reason, detail))
    return ScoredRows(positions, scores, refusals)
