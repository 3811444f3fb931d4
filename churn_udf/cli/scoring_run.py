"""One run of ``churn-score batch``: rows of a source to a file or a stream."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa

from churn_udf.bundle_store import Bundle, require_match
from churn_udf.cli.inputs import Source, open_source
from churn_udf.cli.outputs import Sink, file_sink, format_of, require_writable, stream_sink
from churn_udf.cli.rows import Refusal, ScoredRows, input_columns, model_input, score_rows
from churn_udf.contracts.scores import SCORE_SCHEMA
from churn_udf.errors import InputError, ScoringError
from churn_udf.scoring import MAX_BATCH_ROWS, Scorer

KEY_COLUMNS = ("user_id", "cutoff_date", "input_hash")
ROW_NUMBER = pa.field("row_number", pa.int64(), nullable=False)
"""Names rows where nothing else does; from 1, in the order of the source."""
RESULT_FIELDS = (
    *(
        SCORE_SCHEMA.field(name)
        for name in ("churn_probability", "churn_logit", "risk_tier", "is_flagged", "top_reason")
    ),
    pa.field("bundle_id", pa.string(), nullable=False),
)
REFUSAL_FIELDS = tuple(pa.field(name, pa.string(), nullable=False) for name in Refusal._fields)
MAX_NAMED_ROWS = 5
PROGRESS_SECONDS = 10.0


@dataclasses.dataclass(kw_only=True)
class ScoringRun:
    """What to score with, and what to do with rows that cannot be scored; used once."""

    bundle: Bundle
    load_scorer: Callable[[Bundle], Scorer]
    keep: tuple[str, ...] | None
    """Columns to pass through; None for those of ``KEY_COLUMNS`` that the source has."""
    unscorable: Path | None
    """File for rows that cannot be scored."""
    must_score_all: bool
    """Whether one such row fails the run."""
    log: Callable[[str], None]
    num_scored: int = 0
    num_unscorable: int = 0

    def to_file(self, where: str, input_format: str, path: Path, output_format: str) -> None:
        """Score to a file, replaced when all is scored.

        Raises:
            InputError, OutputError: Something cannot be read or written.
            ScoringError: Rows cannot be scored although they must.
        """
        require_writable(path)
        kind = format_of(path, output_format)

        def sink_of(schema: pa.Schema) -> contextlib.AbstractContextManager[Sink]:
            return file_sink(path, schema, kind)

        self._score(where, input_format, sink_of, str(path))

    def to_stream(self, where: str, input_format: str, stream: BinaryIO) -> None:
        """Score to an Arrow stream; after an error it has no end mark.

        Raises:
            BrokenPipeError: Its reader is gone.
            InputError, OutputError, ScoringError: See ``to_file``.
        """

        def sink_of(schema: pa.Schema) -> contextlib.AbstractContextManager[Sink]:
            return stream_sink(stream, schema)

        self._score(where, input_format, sink_of, "standard output")

    def _score(
        self,
        where: str,
        input_format: str,
        sink_of: Callable[[pa.Schema], contextlib.AbstractContextManager[Sink]],
        target: str,
    ) -> None:
        started = time.monotonic()
        if self.unscorable is not None:
            require_writable(self.unscorable)
            unscorable_format = format_of(self.unscorable, "auto")
        with open_source(where, input_format, sys.stdin.buffer) as source:
            needed = input_columns(source.schema, self.bundle, source.name)
            kept = self._kept_fields(source)
            self._check_settings(source)
            scorer = self.load_scorer(self.bundle)
            # The list is written whole, then the run may fail, and only then the output replaced.
            with sink_of(pa.schema([*kept, *RESULT_FIELDS])) as sink:
                with contextlib.ExitStack() as stack:
                    listed: Sink | None = None
                    if self.unscorable is not None:
                        schema = pa.schema([*_named(kept), *REFUSAL_FIELDS])
                        listed = stack.enter_context(
                            file_sink(self.unscorable, schema, unscorable_format)
                        )
                    for batch in self._batches(source, needed, kept, started):
                        self._score_batch(scorer, batch, kept, sink, listed)
                self._judge_unscorable()
        seconds = time.monotonic() - started
        rate = self.num_scored / max(seconds, 1e-9)
        self.log(
            f"scored {self.num_scored:,} rows in {seconds:,.1f} s ({rate:,.0f} rows/s), "
            f"{self.num_unscorable:,} unscorable; bundle {self.bundle.bundle_id}; {target}"
        )

    def _kept_fields(self, source: Source) -> list[pa.Field]:
        """Return the fields to pass through, or the row number where there is none.

        Raises:
            InputError: A column of --keep is not there, or has the name of a result.
        """
        if self.keep is None:
            names = [name for name in KEY_COLUMNS if source.schema.names.count(name) == 1]
        else:
            names = list(dict.fromkeys(self.keep))
        absent = [name for name in names if source.schema.names.count(name) != 1]
        taken = {field.name for field in (*RESULT_FIELDS, *REFUSAL_FIELDS, ROW_NUMBER)} & set(names)
        if absent or taken:
            raise InputError(
                f"--keep: {source.name} has not once {absent}, and {sorted(taken)} are names of "
                f"results; allowed: other columns of {source.schema.names}"
            )
        # Written without the source's metadata, which tells of the source.
        fields = [source.schema.field(name).remove_metadata() for name in names]
        return fields or [ROW_NUMBER]

    def _check_settings(self, source: Source) -> None:
        """Compare the settings of source and bundle where the source tells its own.

        Raises:
            BundleMismatchError: They differ.
        """
        if source.settings is None:
            self.log(
                f"{source.name} does not tell its settings, so they were not compared with those "
                f"of bundle {self.bundle.bundle_id}"
            )
            return
        require_match(self.bundle.manifest, source.settings, None)

    def _batches(
        self, source: Source, needed: list[str], kept: list[pa.Field], started: float
    ) -> Iterator[pa.RecordBatch]:
        """Yield batches with their row numbers, and tell of progress."""
        columns = list(dict.fromkeys([*needed, *(field.name for field in kept)]))
        columns = [name for name in columns if name != ROW_NUMBER.name]
        first, reported = 1, started
        for batch in source.read(columns, MAX_BATCH_ROWS):
            numbers = pa.array(np.arange(first, first + batch.num_rows), ROW_NUMBER.type)
            yield batch.append_column(ROW_NUMBER, numbers)
            first += batch.num_rows
            now = time.monotonic()
            if now - reported >= PROGRESS_SECONDS:
                reported = now
                self.log(f"{first - 1:,} rows, {(first - 1) / (now - started):,.0f} rows/s")

    def _score_batch(
        self,
        scorer: Scorer,
        batch: pa.RecordBatch,
        kept: list[pa.Field],
        sink: Sink,
        listed: Sink | None,
    ) -> None:
        """Score a batch and write what came of it."""
        scored = score_rows(scorer, model_input(batch, self.bundle.feature_names))
        if scored.scores.num_rows:
            sink.write_batch(self._results(batch, kept, scored))
        self.num_scored += scored.scores.num_rows
        if not scored.refusals:
            return
        rows = batch.select([field.name for field in _named(kept)])
        rows = rows.take(pa.array(list(scored.refusals), pa.int64()))
        refusals = [pa.array(texts) for texts in zip(*scored.refusals.values(), strict=True)]
        schema = pa.schema([*_named(kept), *REFUSAL_FIELDS])
        refused = pa.RecordBatch.from_arrays([*rows.columns, *refusals], schema=schema)
        if listed is not None:
            listed.write_batch(refused)
        for row in refused.slice(0, max(0, MAX_NAMED_ROWS - self.num_unscorable)).to_pylist():
            names = ", ".join(f"{name} {row[name]}" for name in rows.schema.names)
            self.log(f"unscorable: {names}: {row['detail']}")
        self.num_unscorable += refused.num_rows

    def _results(
        self, batch: pa.RecordBatch, kept: list[pa.Field], scored: ScoredRows
    ) -> pa.RecordBatch:
        """Put what is passed through beside the scores."""
        rows = batch.select([field.name for field in kept]).take(pa.array(scored.positions))
        scores = [scored.scores.column(field.name) for field in RESULT_FIELDS[:-1]]
        bundle_ids = pa.array([self.bundle.bundle_id] * rows.num_rows, pa.string())
        return pa.RecordBatch.from_arrays(
            [*rows.columns, *scores, bundle_ids], schema=pa.schema([*kept, *RESULT_FIELDS])
        )

    def _judge_unscorable(self) -> None:
        """Fail the run if it must score all and did not.

        Raises:
            ScoringError: Says how many rows and where they are listed.
        """
        if not (self.must_score_all and self.num_unscorable):
            return
        place = f"listed in {self.unscorable}" if self.unscorable else "give --unscorable FILE"
        raise ScoringError(
            f"{self.num_unscorable:,} of {self.num_scored + self.num_unscorable:,} rows cannot be "
            f"scored ({place}); the output is as it was before. Mend them, or allow them with "
            "--on-unscorable warn"
        )


def _named(kept: list[pa.Field]) -> list[pa.Field]:
    """Return the fields by which a refused row is found: what is kept, and its number."""
    return [*(field for field in kept if field.name != ROW_NUMBER.name), ROW_NUMBER]
