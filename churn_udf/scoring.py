"""The scoring core that every door shares: Arrow record batches in, Arrow record batches out.

A row's score depends on that row and the bundle alone. A row that cannot be scored is an
error that names it (``score_batch``) or is listed with its reason (``score_or_list``); there
is no stand-in number.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from churn_udf.batching import distinct_rows
from churn_udf.bundle_store import Bundle
from churn_udf.contracts.scores import input_schema
from churn_udf.errors import BundleMismatchError, ScoringError
from churn_udf.score_table import Scores, score_table
from churn_udf.tokenization import TokenBatch
from churn_udf.unscorable import list_infinite, list_not_finite, read_columns

FloatArray = npt.NDArray[np.float64]

MAX_BATCH_ROWS = 8_192
"""Rows given to the model at once: bounds memory, and is enough for batches of like length."""

TEXT_COLUMNS = ("behavior_text", "review_text_recent")
REBUILD_HINT = "rebuild its features with `dbt build -s +churn_examples`"


class Output(Protocol):
    """What a runner returns: see ``churn_udf.model.output.ModelOutput``."""

    @property
    def logits(self) -> FloatArray:
        """(B,) churn logits."""

    @property
    def group_effects(self) -> FloatArray:
        """(B, G), by how many logits each group raises the risk."""


class Runner(Protocol):
    """What scoring needs of a model: see ``churn_udf.model.ensemble.EnsembleRunner``."""

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Numeric inputs in model order."""

    @property
    def feature_groups(self) -> tuple[str, ...]:
        """Names of the groups that effects are told for."""

    def tokens(self, behavior_texts: pa.Array, review_texts: pa.Array) -> TokenBatch | None:
        """Return the tokens of B texts, none if no text is read; needs no lock."""

    def run(
        self,
        behavior_texts: pa.Array,
        review_texts: pa.Array,
        features: FloatArray,
        *,
        with_effects: bool = True,
        tokens: TokenBatch | None = None,
    ) -> Output:
        """Compute logits and group effects of B rows, (B, 0) if not wanted.

        Makes the tokens that it is not given.
        """


class Scorer:
    """Scores rows with one bundle; safe to call from several threads.

    Args:
        bundle: A verified bundle.
        runner: Its model, loaded.

    Raises:
        BundleMismatchError: The model's features are not those of the bundle's manifest.
        BundleIntegrityError: Flags are set by a feature that the bundle does not have.
    """

    def __init__(self, bundle: Bundle, runner: Runner) -> None:
        if tuple(runner.feature_names) != bundle.feature_names:
            raise BundleMismatchError(
                f"bundle {bundle.bundle_id}: its model reads {len(runner.feature_names)} features "
                f"and they are not the {len(bundle.feature_names)} of its manifest; train a new "
                "model with `churn-train run`"
            )
        bundle.thresholds.require_features(bundle.feature_names)
        self.bundle = bundle
        self._runner = runner
        self._lock = threading.Lock()
        self._schema = input_schema(bundle.feature_names)

    @classmethod
    def load(cls, bundle: Bundle, *, device: str = "auto", precision: str = "auto") -> Scorer:
        """Load the members of the bundle that have a weight; only ``bert`` imports torch.

        Args:
            bundle: A verified bundle.
            device: ``auto`` (a GPU when there is one), ``cpu``, ``cuda``, ``cuda:1``, ...
            precision: ``auto`` (what the bundle recorded as checked) or ``fp32``.

        Raises:
            BundleIntegrityError: Weights and configuration do not fit each other.
            ScoringError: The device does not exist, or another ``precision``.
        """
        from churn_udf.model.ensemble import EnsembleRunner

        features = bundle.manifest.features
        runner = EnsembleRunner.load(bundle.directory, features, device=device, precision=precision)
        return cls(bundle, runner)

    def score_batches(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Score a stream, holding at most ``MAX_BATCH_ROWS`` rows of results at a time.

        Args:
            batches: Record batches or a reader; see ``score_batch``.
        """
        for batch in batches:
            for start in range(0, batch.num_rows, MAX_BATCH_ROWS):
                yield self.score_batch(batch.slice(start, MAX_BATCH_ROWS))

    def tokens(self, batch: pa.RecordBatch) -> TokenBatch | None:
        """Make the tokens of a batch for ``score_batch``, while another thread may score.

        Args:
            batch: As for ``score_batch``, which checks it; null texts are read as empty here.

        Returns:
            The tokens of its rows; none if the model reads no text.
        """
        texts = (_column(batch, self._schema.field(name)) for name in TEXT_COLUMNS)
        return self._runner.tokens(*(pc.fill_null(column, "") for column in texts))

    def score_batch(
        self,
        batch: pa.RecordBatch,
        *,
        tokens: TokenBatch | None = None,
        is_distinct: bool = False,
    ) -> pa.RecordBatch:
        """Score rows, in their order; rows with equal texts and features once.

        Args:
            batch: Columns of ``input_schema``; others are ignored.
            tokens: What ``tokens`` made of this batch; made here if not given.
            is_distinct: No two rows are equal, so looking for such is spared.

        Returns:
            One row per input row, ``SCORE_SCHEMA``.

        Raises:
            ScoringError: A column is missing or of a wrong type, or a row has a null text, an
                infinite feature or a score that is not finite; names the row and the column.
        """
        columns = {field.name: _column(batch, field) for field in self._schema}
        hashes = columns["input_hash"]
        if hashes.null_count:
            raise ScoringError(f"{hashes.null_count} rows have no input_hash; run `dbt build`")
        features = _feature_matrix([columns[name] for name in self.bundle.feature_names])
        scores = self.score_arrays(
            columns["behavior_text"],
            columns["review_text_recent"],
            features,
            labels=hashes,
            tokens=tokens,
            is_distinct=is_distinct,
        )
        names = self.bundle.feature_names
        flags = self.bundle.thresholds.flags_of(scores.probabilities, features, names)
        return score_table(
            hashes, scores, flags, self.bundle.thresholds, self._runner.feature_groups
        )

    def score_or_list(
        self,
        batch: pa.RecordBatch,
        *,
        tokens: TokenBatch | None = None,
        is_distinct: bool = False,
    ) -> tuple[pa.RecordBatch, pa.RecordBatch]:
        """Score the rows that can be, in their order, and list the others with the reason.

        A row's score is the one that ``score_batch`` gives it without the others.

        Args:
            batch: Columns of ``input_schema``; of others only ``user_id`` is looked at.
            tokens: What ``tokens`` made of this batch; made here if not given.
            is_distinct: See ``score_batch``.

        Returns:
            ``SCORE_SCHEMA`` rows, and ``UNSCORABLE_SCHEMA`` rows: one per row and reason. Each
            row of the batch is in exactly one of the two.

        Raises:
            ScoringError: A column is missing or of a type that cannot be read at all.
        """
        names = self.bundle.feature_names
        columns, listed = read_columns(batch, self._schema)
        features = _feature_matrix([columns[name] for name in names])
        list_infinite(listed, features, names)
        rows = listed.scorable_rows
        behavior_texts, review_texts = columns["behavior_text"], columns["review_text_recent"]
        if len(rows) < batch.num_rows:
            features, taken = features[rows], pa.array(rows)
            behavior_texts, review_texts = behavior_texts.take(taken), review_texts.take(taken)
            tokens = None if tokens is None else tokens.take(rows)
        logits, effects = self._run(
            behavior_texts,
            review_texts,
            features,
            tokens,
            with_effects=True,
            is_distinct=is_distinct,
        )
        results = self._results(logits, effects)
        is_finite = list_not_finite(listed, rows, results)
        probabilities = results["churn_probability"][is_finite]
        scores = Scores(logits[is_finite], probabilities, effects[is_finite])
        flags = self.bundle.thresholds.flags_of(probabilities, features[is_finite], names)
        hashes = columns["input_hash"].take(pa.array(rows[is_finite]))
        scored = score_table(
            hashes, scores, flags, self.bundle.thresholds, self._runner.feature_groups
        )
        return scored, listed.to_record_batch(columns["input_hash"])

    def score_arrays(
        self,
        behavior_texts: pa.Array,
        review_texts: pa.Array,
        features: FloatArray,
        *,
        labels: pa.Array | None = None,
        with_effects: bool = True,
        tokens: TokenBatch | None = None,
        is_distinct: bool = False,
    ) -> Scores:
        """Score rows given as arrays.

        Args:
            behavior_texts: (B,) strings.
            review_texts: (B,) strings, empty where there is no review.
            features: (B, F) float64 in model order, NaN where unknown.
            labels: (B,) input hashes that name rows in errors; row numbers if not given.
            with_effects: Whether the effects of groups are wanted; they cost time.
            tokens: Of the B texts; made here if not given.
            is_distinct: See ``score_batch``.

        Raises:
            ScoringError: See ``score_batch``.
        """
        texts = (behavior_texts, review_texts)
        for name, column in zip(TEXT_COLUMNS, texts, strict=True):
            if column.null_count:
                row = pc.index(pc.is_null(column), pa.scalar(True)).as_py()
                raise _row_error(labels, row, name, "null", "text; '' where there is no review")
        if np.isinf(features).any():
            row, index = np.argwhere(np.isinf(features))[0]
            name = self.bundle.feature_names[index]
            raise _row_error(labels, row, name, features[row, index], "a number or null (unknown)")
        logits, effects = self._run(
            *texts, features, tokens, with_effects=with_effects, is_distinct=is_distinct
        )
        return self._checked(logits, effects, labels)

    def _run(
        self,
        behavior_texts: pa.Array,
        review_texts: pa.Array,
        features: FloatArray,
        tokens: TokenBatch | None,
        *,
        with_effects: bool,
        is_distinct: bool,
    ) -> tuple[FloatArray, FloatArray]:
        """Return (B,) logits and (B, G) effects; equal rows are run once."""
        rows = None if is_distinct else distinct_rows(behavior_texts, review_texts, features)
        if rows is None:
            return self._run_rows(
                behavior_texts, review_texts, features, tokens, with_effects=with_effects
            )
        chosen = pa.array(rows.first)
        logits, effects = self._run_rows(
            behavior_texts.take(chosen),
            review_texts.take(chosen),
            features[rows.first],
            None if tokens is None else tokens.take(rows.first),
            with_effects=with_effects,
        )
        return logits[rows.inverse], effects[rows.inverse]

    def _run_rows(
        self,
        behavior_texts: pa.Array,
        review_texts: pa.Array,
        features: FloatArray,
        tokens: TokenBatch | None,
        *,
        with_effects: bool,
    ) -> tuple[FloatArray, FloatArray]:
        """Return (B,) logits and (B, G) effects as the model gives them, finite or not."""
        num_groups = len(self._runner.feature_groups) if with_effects else 0
        logits, effects = [np.empty(0)], [np.empty((0, num_groups))]
        for start in range(0, len(features), MAX_BATCH_ROWS):
            rows = slice(start, start + MAX_BATCH_ROWS)
            part = tokens
            if tokens is not None and len(features) > MAX_BATCH_ROWS:
                part = tokens.take(np.arange(len(features))[rows])
            texts = behavior_texts[rows], review_texts[rows]
            with self._lock:
                output = self._runner.run(
                    *texts, features[rows], with_effects=with_effects, tokens=part
                )
            logits.append(output.logits)
            effects.append(output.group_effects)
        return np.concatenate(logits), np.concatenate(effects)

    def _results(self, logits: FloatArray, effects: FloatArray) -> dict[str, FloatArray]:
        """Return (B,) values that must be finite, by the column that they go into."""
        with np.errstate(all="ignore"):
            return {
                "churn_logit": logits,
                "churn_probability": self.bundle.calibrator.apply(logits),
                "reason_effects": effects.sum(axis=1),
            }

    def _checked(self, logits: FloatArray, effects: FloatArray, labels: pa.Array | None) -> Scores:
        """Calibrate, and refuse anything that is not a finite number."""
        results = self._results(logits, effects)
        for name, values in results.items():
            if not np.isfinite(values).all():
                row = int(np.flatnonzero(~np.isfinite(values))[0])
                raise _row_error(labels, row, name, values[row], "a finite number")
        return Scores(logits, results["churn_probability"], effects)


def _column(batch: pa.RecordBatch, field: pa.Field) -> pa.Array:
    """Return one input column with the contract's type."""
    if field.name not in batch.schema.names:
        raise ScoringError(
            f"scoring input lacks column {field.name!r}; it has {batch.schema.names}; "
            "run `dbt build`"
        )
    column = batch.column(field.name)
    try:
        return column.cast(field.type)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise ScoringError(
            f"scoring input column {field.name!r} is {column.type}; allowed: {field.type} ({error})"
        ) from error


def _feature_matrix(columns: list[pa.Array]) -> FloatArray:
    """Return (B, F) float64 with nulls as NaN."""
    arrays = [column.to_numpy(zero_copy_only=False) for column in columns]
    return np.column_stack(arrays).astype(np.float64, copy=False)


def _row_error(
    labels: pa.Array | None, row: int, column: str, value: object, allowed: str
) -> ScoringError:
    """Build the error about one cell."""
    who = f"row {row}" if labels is None else f"input_hash {labels[row].as_py()!r}"
    return ScoringError(
        f"{who}, column {column!r}: got {value}; allowed: {allowed}; {REBUILD_HINT}. "
        "Nothing of this batch was scored"
    )
