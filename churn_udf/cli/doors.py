"""What a service reads and writes: newline JSON, or Arrow streams."""

from __future__ import annotations

import dataclasses
import json
import math
import operator
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, BinaryIO, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from churn_udf.bundle_store import Bundle
from churn_udf.cli.arrivals import Arrivals, Request
from churn_udf.cli.inputs import sliced
from churn_udf.cli.rows import (
    NOT_A_ROW,
    Refusal,
    ScoredRows,
    input_columns,
    model_input,
)
from churn_udf.contracts.scores import SCORE_SCHEMA, input_schema
from churn_udf.contracts.unscorable import INVALID_VALUE
from churn_udf.errors import InputError

MAX_LINE_BYTES = 1 << 20
RESULTS = ("churn_probability", "risk_tier", "is_flagged", "top_reason")
ECHOED_COLUMNS = ("id", "user_id", "cutoff_date", "input_hash")
_NUMBERS = {float, int, bool, type(None)}


@dataclasses.dataclass(frozen=True)
class ModelRows:
    """The rows of a micro-batch that are well formed, and why the others are not."""

    batch: pa.RecordBatch
    """(S,) rows as ``model_input`` makes them."""
    positions: npt.NDArray[np.int64]
    """(S,) their places in the micro-batch."""
    refusals: dict[int, Refusal]
    """Place -> what is wrong."""


class Door(Protocol):
    """One way in and out of a service."""

    def requests(self, arrivals: Arrivals, max_rows: int) -> Iterator[Request]:
        """Read rows as they arrive, at most ``max_rows`` to a request."""

    def model_rows(self, requests: Sequence[Request], feature_names: Sequence[str]) -> ModelRows:
        """Make rows of the model."""

    def write(
        self, stream: BinaryIO, requests: Sequence[Request], scored: ScoredRows, bundle_id: str
    ) -> None:
        """Write the answers in the order of the requests."""

    def finish(self, stream: BinaryIO) -> None:
        """Write what ends the stream."""


@dataclasses.dataclass(frozen=True)
class Line:
    """One line of JSON."""

    number: int
    """From 1."""
    row_id: Any = None
    document: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    problem: str | None = None
    """Why it is not a row."""


class JsonDoor:
    """One JSON object a line, in and out."""

    def requests(self, arrivals: Arrivals, max_rows: int) -> Iterator[Request]:
        """Read lines; empty ones are passed over."""
        for number, text in enumerate(split_lines(arrivals), start=1):
            if text is None:
                problem = f"the line is longer than {MAX_LINE_BYTES:,} bytes; allowed: one row"
                yield Request(Line(number, problem=problem), 1, arrivals.read_at)
            elif text.strip():
                yield Request(parse_line(number, text), 1, arrivals.read_at)

    def model_rows(self, requests: Sequence[Request], feature_names: Sequence[str]) -> ModelRows:
        """Make rows of the model from the lines that are rows."""
        refusals: dict[int, Refusal] = {}
        positions, texts, reviews, features = [], [], [], []
        for position, request in enumerate(requests):
            line: Line = request.content
            if line.problem is not None:
                refusals[position] = Refusal(NOT_A_ROW, line.problem)
                continue
            try:
                row = (
                    _text(line.document, "behavior_text"),
                    _text(line.document, "review_text_recent"),
                    _numbers(line.document, feature_names),
                )
            except ValueError as error:
                refusals[position] = Refusal(INVALID_VALUE, str(error))
                continue
            positions.append(position)
            texts.append(row[0])
            reviews.append(row[1] or "")
            features.append(row[2])
        matrix = np.array(features, np.float64).reshape(len(features), len(feature_names))
        columns = [
            pa.array([str(row) for row in range(len(texts))], pa.string()),
            pa.array(texts, pa.string()),
            pa.array(reviews, pa.string()),
            *(pa.array(column) for column in np.ascontiguousarray(matrix.T)),
        ]
        batch = pa.RecordBatch.from_arrays(columns, names=input_schema(feature_names).names)
        return ModelRows(batch, np.array(positions, np.int64), refusals)

    def write(
        self, stream: BinaryIO, requests: Sequence[Request], scored: ScoredRows, bundle_id: str
    ) -> None:
        """Write a line for each request."""
        answers: list[dict[str, Any]] = [{} for _ in requests]
        columns = [scored.scores.column(name).to_pylist() for name in RESULTS]
        for position, *values in zip(scored.positions, *columns, strict=True):
            row_id = requests[position].content.row_id
            results = dict(zip(RESULTS, values, strict=True))
            answers[position] = {"id": row_id, **results, "bundle_id": bundle_id}
        for position, (reason, detail) in scored.refusals.items():
            line = requests[position].content
            answers[position] = {
                "id": line.row_id,
                "line": line.number,
                "reason": reason,
                "error": detail,
            }
        stream.write("".join(json.dumps(answer) + "\n" for answer in answers).encode())
        stream.flush()

    def finish(self, stream: BinaryIO) -> None:
        """Nothing ends newline JSON."""


class ArrowDoor:
    """An Arrow stream in, an Arrow stream out; ids are the columns of ``ECHOED_COLUMNS``.

    Args:
        bundle: What the columns are checked against.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._echoed: list[pa.Field] = []
        self._schema: pa.Schema | None = None
        self._writer: Any = None

    def requests(self, arrivals: Arrivals, max_rows: int) -> Iterator[Request]:
        """Read batches, cut where they are large.

        Raises:
            InputError: Not an Arrow stream, one cut short, or one that lacks columns.
        """
        try:
            reader = pa.ipc.open_stream(pa.PythonFile(arrivals, mode="r"))
            needed = input_columns(reader.schema, self._bundle, "standard input")
            names = [name for name in ECHOED_COLUMNS if reader.schema.names.count(name) == 1]
            self._echoed = [reader.schema.field(name) for name in names]
            score_fields = [SCORE_SCHEMA.field(name).with_nullable(True) for name in RESULTS]
            texts = [pa.field(name, pa.string()) for name in ("bundle_id", "reason", "error")]
            self._schema = pa.schema([*self._echoed, *score_fields, *texts])
            for batch in sliced(reader, list(dict.fromkeys([*needed, *names])), max_rows):
                yield Request(batch, batch.num_rows, arrivals.read_at)
        except (pa.ArrowException, OSError) as error:
            if arrivals.is_stopped:
                return  # in the middle of a batch, or before the first
            raise InputError(
                f"standard input is not an Arrow stream, or was cut short ({error}); allowed: an "
                "Arrow stream, or newline JSON with --format json"
            ) from error

    def model_rows(self, requests: Sequence[Request], feature_names: Sequence[str]) -> ModelRows:
        """Make rows of the model; if text is damaged, row by row."""
        batch = pa.concat_batches([request.content for request in requests])
        try:
            rows = model_input(batch, feature_names)
            return ModelRows(rows, np.arange(batch.num_rows), {})
        except InputError:
            return self._model_rows_one_by_one(batch, feature_names)

    def _model_rows_one_by_one(
        self, batch: pa.RecordBatch, feature_names: Sequence[str]
    ) -> ModelRows:
        problems = (_damage(batch.slice(row, 1), feature_names) for row in range(batch.num_rows))
        refusals = {
            row: Refusal(INVALID_VALUE, problem) for row, problem in enumerate(problems) if problem
        }
        positions = np.setdiff1d(np.arange(batch.num_rows), list(refusals))
        return ModelRows(
            model_input(batch.take(pa.array(positions)), feature_names), positions, refusals
        )

    def write(
        self, stream: BinaryIO, requests: Sequence[Request], scored: ScoredRows, bundle_id: str
    ) -> None:
        """Write one batch: scores, or null and the error."""
        batch = pa.concat_batches([request.content for request in requests])
        places = np.full(batch.num_rows, -1)
        places[scored.positions] = np.arange(len(scored.positions))
        indices = pa.array(places, mask=places < 0)
        refusals = [scored.refusals.get(row) for row in range(batch.num_rows)]
        columns = [
            *(batch.column(field.name) for field in self._echoed),
            *(scored.scores.column(name).take(indices) for name in RESULTS),
            pa.array([None if refusal else bundle_id for refusal in refusals], pa.string()),
            pa.array([refusal and refusal.reason for refusal in refusals], pa.string()),
            pa.array([refusal and refusal.detail for refusal in refusals], pa.string()),
        ]
        self._open(stream).write_batch(pa.RecordBatch.from_arrays(columns, schema=self._schema))
        stream.flush()

    def finish(self, stream: BinaryIO) -> None:
        """Write the end mark, also of a stream without rows."""
        if self._schema is not None:
            self._open(stream).close()

    def _open(self, stream: BinaryIO) -> Any:
        if self._writer is None:
            self._writer = pa.ipc.new_stream(pa.PythonFile(stream, mode="w"), self._schema)
        return self._writer


def _damage(row: pa.RecordBatch, feature_names: Sequence[str]) -> str | None:
    """Return what is wrong with a row's bytes, if anything is."""
    try:
        model_input(row, feature_names)
    except InputError as error:
        return str(error)
    return None


def split_lines(arrivals: Arrivals) -> Iterator[bytes | None]:
    """Yield lines without their end, and None for one that is too long; never holds more.

    Text after the last line's end is a line too, unless the input was stopped in its middle.
    """
    pending = b""
    is_too_long = False
    while data := arrivals.read_some():
        *lines, pending = (pending + data).split(b"\n")
        for line in lines:
            yield None if is_too_long or len(line) > MAX_LINE_BYTES else line
            is_too_long = False
        if len(pending) > MAX_LINE_BYTES:
            pending, is_too_long = b"", True
    if (pending or is_too_long) and not arrivals.is_stopped:
        yield None if is_too_long else pending


def parse_line(number: int, text: bytes) -> Line:
    """Parse a line; what is wrong with it is told in its answer."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        return Line(number, problem=f"not JSON ({error}); allowed: one JSON object a line")
    if not isinstance(document, dict):
        kind = type(document).__name__
        return Line(number, problem=f"a JSON {kind}; allowed: one JSON object a line")
    row_id = document.get("id")
    is_usable = row_id is None or isinstance(row_id, str | int)
    if not is_usable and not (isinstance(row_id, float) and math.isfinite(row_id)):
        return Line(number, problem=f"id is {row_id!r:.40}; allowed: text, a number or null")
    return Line(number, row_id, document)


def _text(document: Mapping[str, Any], name: str) -> str | None:
    """Return a text; only a review may be left out.

    Raises:
        ValueError: It is not text.
    """
    value = document.get(name)
    if value is None and (name in document or name == "review_text_recent"):
        return None
    if not isinstance(value, str):
        what = f"{value!r:.40}" if name in document else "missing"
        raise ValueError(f"{name} is {what}; allowed: text")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"{name} is not Unicode text ({error.reason})") from error
    return value


def _numbers(document: Mapping[str, Any], names: Sequence[str]) -> list[float | None]:
    """Return the features in model order, None where unknown; each has to be named.

    Raises:
        ValueError: A feature is missing or not a number.
    """
    holder = document.get("features", document)
    if not isinstance(holder, dict):
        raise ValueError(f"features is {holder!r:.40}; allowed: an object of name to number")
    missing = [name for name in names if name not in holder]
    if missing:
        more = f" and {len(missing) - 5} more" * (len(missing) > 5)
        raise ValueError(f"features missing: {', '.join(missing[:5])}{more}; null is unknown")
    values = list(operator.itemgetter(*names)(holder)) if len(names) > 1 else [holder[names[0]]]
    if not _NUMBERS.issuperset(map(type, values)):
        name = next(name for name in names if type(holder[name]) not in _NUMBERS)
        raise ValueError(f"{name} is {holder[name]!r:.40}; allowed: a number or null (unknown)")
    try:
        return [None if value is None else float(value) for value in values]
    except OverflowError as error:
        raise ValueError(f"a feature is too large ({error}); allowed: a number or null") from error
