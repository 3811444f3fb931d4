"""Body of the dbt Python model ``int_scores_attributed``: what the model before would say now.

Where another model is champion than at the cutoff before, a change of score is split by two more
numbers per input: what that model says of the input of today, and what its calibrator makes of
today's model. The first is scored and kept like any score, by the inputs that need it alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from churn_udf.bundle_store import Bundle, bundle_directory, open_bundle
from churn_udf.contracts.bundle import (
    CALIBRATION_FILE,
    METRICS_FILE,
    MODEL_CARD_FILE,
    REFERENCE_FILE,
    THRESHOLDS_FILE,
)
from churn_udf.errors import BundleMismatchError, BundleNotFoundError
from churn_udf.warehouse import dbt_model
from churn_udf.warehouse.champion_scorers import forget_scorer, scorer_of
from churn_udf.warehouse.dbt_model import LoadScorer, ScoringContext
from churn_udf.warehouse.interruption import Interruption
from churn_udf.warehouse.score_cache import READ_ROWS
from churn_udf.warehouse.shadow_model import open_unscorable

ATTRIBUTION_SCHEMA = pa.schema(
    [
        ("input_hash", pa.string()),
        ("bundle_id", pa.string()),
        ("previous_bundle_id", pa.string()),
        ("unsplit_reason", pa.string()),
        ("previous_model_probability", pa.float64()),
        ("previous_calibrator_probability", pa.float64()),
        ("is_same_model", pa.bool_()),
        ("is_same_calibrator", pa.bool_()),
    ]
)
PAIRS = "churn_score_pairs"
NOT_THE_MODEL = frozenset(
    {CALIBRATION_FILE, THRESHOLDS_FILE, METRICS_FILE, MODEL_CARD_FILE, REFERENCE_FILE}
)
"""Files of a bundle that its logits do not depend on."""
BUNDLE_MISSING = "bundle_missing"
BUNDLE_MISMATCH = "bundle_mismatch"
BUNDLE_UNUSABLE = "bundle_unusable"
INPUT_UNSCORABLE = "input_unscorable"


@dataclasses.dataclass(frozen=True)
class Change:
    """The champion of a cutoff and that of the one before, if another one and usable."""

    bundle_id: str
    previous_id: str
    champion: Bundle | None = None
    previous: Bundle | None = None
    unsplit_reason: str | None = None
    """Why there is nothing to split by, for all inputs; none if there is."""

    @property
    def is_same_model(self) -> bool:
        """Whether both give the same logits, by the files that make them."""
        if self.champion is None or self.previous is None:
            return False
        one, other = (
            {name: sha for name, sha in bundle.manifest.files.items() if name not in NOT_THE_MODEL}
            for bundle in (self.champion, self.previous)
        )
        return one == other and self.champion.feature_names == self.previous.feature_names

    @property
    def is_same_calibrator(self) -> bool:
        """Whether both make the same probability of a logit."""
        if self.champion is None or self.previous is None:
            return False
        return self.champion.calibrator == self.previous.calibrator


def model(dbt: Any, session: Any, *, load_scorer: LoadScorer = scorer_of) -> pa.RecordBatchReader:
    """Return, per input of a user who was scored before, what the champion before says of it.

    Args:
        dbt: The object dbt hands to Python models.
        session: dbt's DuckDB cursor.
        load_scorer: How a bundle becomes a scorer.

    Returns:
        ``ATTRIBUTION_SCHEMA`` rows, one per input; none where the champion is the one before.
        Both probabilities are null with a reason where they cannot be had.

    Raises:
        ScoringError: dbt was interrupted.
        SettingsError: The profile lacks the plugin.
    """
    with dbt_model.one_at_a_time:
        context = dbt_model.read_context(session)
        changed = _changed_bundles(session, context)
        if changed is None:
            return pa.RecordBatchReader.from_batches(ATTRIBUTION_SCHEMA, [])
        change = _score_by_previous(session, context, _open(context, *changed), load_scorer)
        return pa.RecordBatchReader.from_batches(
            ATTRIBUTION_SCHEMA, _attributed(session, context, change)
        )


def _changed_bundles(session: Any, context: ScoringContext) -> tuple[str, str] | None:
    """Return the ids of the champion and of the one before, None if it is the same."""
    rows = (
        session.cursor()
        .execute(
            "select distinct bundle_id, previous_bundle_id "
            f"from {context.relations[PAIRS]} where bundle_id <> previous_bundle_id"
        )
        .fetchall()
    )
    return rows[0] if rows else None


def _open(context: ScoringContext, bundle_id: str, previous_id: str) -> Change:
    """Verify both bundles."""
    try:
        champion, previous = (
            open_bundle(
                bundle_directory(context.models_dir, name),
                settings=context.settings,
                feature_names=context.feature_names,
            )
            for name in (bundle_id, previous_id)
        )
    except Exception as error:  # whatever it is, a disk that cannot be read too: the scores go on
        return _unsplit(bundle_id, previous_id, error)
    return Change(bundle_id, previous_id, champion, previous)


def _unsplit(bundle_id: str, previous_id: str, error: Exception) -> Change:
    """Tell and return that there is nothing to split by."""
    reason = BUNDLE_UNUSABLE
    if isinstance(error, BundleNotFoundError):
        reason = BUNDLE_MISSING
    elif isinstance(error, BundleMismatchError):
        reason = BUNDLE_MISMATCH
    dbt_model.dbt_logger()(
        f"changes of score since {previous_id} cannot be split by cause ({reason}): "
        f"{type(error).__name__}: {error}"
    )
    return Change(bundle_id, previous_id, unsplit_reason=reason)


def _score_by_previous(
    session: Any, context: ScoringContext, change: Change, load_scorer: LoadScorer
) -> Change:
    """Let the champion before score what it has to; return what became of it."""
    if change.previous is None or change.is_same_model:
        return change
    log = dbt_model.dbt_logger()
    with Interruption(session, log) as interruption:
        try:
            dbt_model.score_inputs(
                session,
                context,
                change.previous,
                open_unscorable(session, context),
                role="champion of the cutoff before",
                is_anew=False,
                load_scorer=load_scorer,
                log=log,
                interruption=interruption,
                among=f"(select input_hash from {context.relations[PAIRS]})",
            )
        except Exception as error:  # whatever it is: the scores go on
            if interruption.is_asked:
                raise
            return _unsplit(change.bundle_id, change.previous_id, error)
        finally:
            forget_scorer(change.previous_id)
    return change


def _attributed(session: Any, context: ScoringContext, change: Change) -> Iterator[pa.RecordBatch]:
    """Yield the rows; a null logit never occurs, a null probability is an input not scored."""
    rows = session.cursor().sql(
        f"""
        select pairs.input_hash, pairs.churn_logit, cache.churn_probability
        from (
            select input_hash, max(churn_logit) as churn_logit
            from {context.relations[PAIRS]}
            where bundle_id <> previous_bundle_id
            group by input_hash
        ) as pairs
        left join {context.cache_relation} as cache
            on pairs.input_hash = cache.input_hash and cache.bundle_id = ?
        """,
        params=[change.previous_id],
    )
    for batch in rows.to_arrow_reader(READ_ROWS):
        hashes, logits, cached = batch.columns
        size = batch.num_rows
        reasons = pa.repeat(pa.scalar(change.unsplit_reason, pa.string()), size)
        by_model = by_calibrator = pa.nulls(size, pa.float64())
        if change.previous is not None:
            by_calibrator = pa.array(
                change.previous.calibrator.apply(logits.to_numpy(zero_copy_only=False))
            )
            by_model = by_calibrator if change.is_same_model else cached
            is_known = by_model.is_valid()
            missing = pa.scalar(INPUT_UNSCORABLE, pa.string())
            reasons = pc.if_else(is_known, pa.scalar(None, pa.string()), missing)
            by_calibrator = pc.if_else(is_known, by_calibrator, None)
        constants = (
            pa.repeat(value, size) for value in (change.is_same_model, change.is_same_calibrator)
        )
        yield pa.RecordBatch.from_arrays(
            [
                hashes,
                pa.repeat(change.bundle_id, size),
                pa.repeat(change.previous_id, size),
                reasons,
                by_model,
                by_calibrator,
                *constants,
            ],
            schema=ATTRIBUTION_SCHEMA,
        )
