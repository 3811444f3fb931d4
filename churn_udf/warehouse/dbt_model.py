"""Bodies of the dbt Python models ``int_inputs_scored`` and ``int_inputs_unscorable``.

The first scores what is not scored yet, the second lists what the first could not score. Their
pre-hook leaves the settings, feature list and relation names in a session variable (macro
``set_scoring_context``); the plugin leaves the models directory in another. Other models than the
champion score by the same means in ``shadow_model`` and ``attribution_model``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import threading
import time
from collections.abc import Callable, Mapping
from datetime import date, datetime, timezone
from typing import Any

import pyarrow as pa

from churn_udf.bundle_store import Bundle, bundle_directory, open_bundle, read_champion
from churn_udf.contracts.settings import ModelSettings
from churn_udf.errors import ScoringError, SettingsError
from churn_udf.models_location import ModelsDir, models_dir_of, place_of
from churn_udf.overlap import UsedBehind, made_ahead
from churn_udf.scoring import Scorer
from churn_udf.warehouse import CONTEXT_VARIABLE, DEVICE_VARIABLE, MODELS_DIR_VARIABLE
from churn_udf.warehouse.champion_scorers import scorer_of
from churn_udf.warehouse.chunks import Chunks
from churn_udf.warehouse.interruption import Interruption
from churn_udf.warehouse.progress import Progress
from churn_udf.warehouse.score_cache import CACHE_SCHEMA, ScoreCache
from churn_udf.warehouse.unscorable_inputs import UnscorableInputs

CHUNK_SECONDS = 3.0
"""A chunk is what a kill can lose, and what progress is told after."""
FIRST_CHUNK_ROWS = 32
"""Few: the largest encoders score five rows a second on a slow machine."""
WAITING_CHUNKS = 2
"""Chunks read ahead of the model, and chunks scored that wait to be written."""

one_at_a_time = threading.Lock()
"""Two threads that both found the same inputs missing would score and store them twice."""

LoadScorer = Callable[..., Scorer]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScoringContext:
    """What dbt tells the Python model."""

    settings: ModelSettings
    feature_names: tuple[str, ...]
    examples_relation: str
    cache_relation: str
    unscorable_relation: str
    """Table of inputs that cannot be scored."""
    unscorable_rows: str
    """``fail`` or ``warn``: what becomes of a build with rows that cannot be scored."""
    cutoff_date: date | None
    """The score cutoff; none when nothing was built (``dbt build --empty``)."""
    built_settings_hash: str | None
    """Settings that churn_examples was built with, as the cutoff spine says."""
    settings_hash: str
    """Settings of this run."""
    is_full_refresh: bool
    models_dir: ModelsDir
    device: str
    relations: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Model or table name to SQL name: what the dbt model refers to, and durable tables."""


def model(dbt: Any, session: Any, *, load_scorer: LoadScorer = scorer_of) -> pa.RecordBatchReader:
    """Return the champion's score of every distinct input at the score cutoff.

    Args:
        dbt: The object dbt hands to Python models.
        session: dbt's DuckDB cursor.
        load_scorer: How a bundle becomes a scorer.

    Returns:
        ``CACHE_SCHEMA`` rows, one per distinct input; none before the first champion.

    Raises:
        BundleError: The champion is missing, damaged or made for other settings or features.
        ScoringError: dbt was interrupted, or rows cannot be scored and
            ``churn__unscorable_rows`` is ``fail``; the others' scores are kept.
        SettingsError: The profile lacks the plugin, or ``churn_examples`` is out of date.
    """
    with one_at_a_time:
        return _score_current(session, read_context(session), load_scorer)


def _score_current(
    session: Any, context: ScoringContext, load_scorer: LoadScorer
) -> pa.RecordBatchReader:
    """Do what ``model`` says."""
    log = dbt_logger()
    champion = read_champion(context.models_dir)
    unscorable = _unscorable_inputs(session, context)
    if champion is None:
        unscorable.clear()
        log(
            f"no champion yet in {place_of(context.models_dir)}: churn_scores stays as it is; "
            "run `churn-train run` to train and promote a model, then `dbt build` again"
        )
        return pa.RecordBatchReader.from_batches(CACHE_SCHEMA, [])
    bundle = open_bundle(
        bundle_directory(context.models_dir, champion.bundle_id),
        settings=context.settings,
        feature_names=context.feature_names,
    )
    require_fresh(context)
    with Interruption(session, log) as interruption:
        if context.is_full_refresh:
            unscorable.clear()
        cache = score_inputs(
            session,
            context,
            bundle,
            unscorable,
            role="champion",
            is_anew=context.is_full_refresh,
            load_scorer=load_scorer,
            log=log,
            interruption=interruption,
        )
        unscorable.keep_current(bundle.bundle_id)
        counted = unscorable.count()
        if counted and context.unscorable_rows == "fail":
            unscorable.raise_error(counted)
        if counted:
            warn(f"{counted}: see churn_unscorable")
    return cache.read_current()


def score_inputs(
    session: Any,
    context: ScoringContext,
    bundle: Bundle,
    unscorable: UnscorableInputs,
    *,
    role: str,
    is_anew: bool,
    load_scorer: LoadScorer,
    log: Callable[[str], None],
    interruption: Interruption,
    among: str | None = None,
) -> ScoreCache:
    """Score the inputs at the score cutoff that a bundle has not scored; load it only for that.

    Args:
        session: dbt's DuckDB cursor.
        context: What dbt tells.
        bundle: Verified against the context's settings and features.
        unscorable: Where inputs go that it cannot score.
        role: What the bundle is, for the log.
        is_anew: Whether to forget its scores first.
        load_scorer: How a bundle becomes a scorer.
        log: Where a line goes.
        interruption: Asked after each chunk.
        among: A subquery with the ``input_hash`` of the only inputs that matter.

    Returns:
        The cache, complete.

    Raises:
        ScoringError: dbt was interrupted, or the inputs changed meanwhile.
    """
    cache = ScoreCache(
        session,
        relation=context.cache_relation,
        examples=context.examples_relation,
        cutoff_date=context.cutoff_date,
        bundle_id=bundle.bundle_id,
        unscorable=unscorable.relation,
        among=among,
    )
    if is_anew:
        cache.clear()
    num_inputs, num_missing = cache.plan()
    log(
        f"{role} {bundle.bundle_id}: {num_inputs:,} distinct inputs at the score cutoff, "
        f"{num_missing:,} to score"
    )
    if num_missing:
        scorer = load_scorer(bundle, context.models_dir, device=context.device)
        _score_missing(cache, unscorable, scorer, num_missing, log, interruption)
        _require_complete(cache)
    return cache


def unscorable_model(dbt: Any, session: Any) -> pa.RecordBatchReader:
    """Return what ``model`` could not score, as it left it.

    Args:
        dbt: The object dbt hands to Python models.
        session: dbt's DuckDB cursor.

    Returns:
        ``UNSCORABLE_INPUT_SCHEMA`` rows of the champion and the score cutoff.

    Raises:
        SettingsError: See ``read_context``.
    """
    return _unscorable_inputs(session, read_context(session)).read()


def read_context(session: Any) -> ScoringContext:
    """Read what the pre-hook and the plugin left in the session.

    Raises:
        SettingsError: One of them is missing, or a setting is not of its type.
    """
    query = "select getvariable(?)"
    variables = {
        name: session.execute(query, [name]).fetchall()[0][0]
        for name in (CONTEXT_VARIABLE, MODELS_DIR_VARIABLE, DEVICE_VARIABLE)
    }
    if variables[MODELS_DIR_VARIABLE] is None:
        raise SettingsError(
            "the dbt target has no churn plugin; add to it in profiles.yml: plugins: "
            "[{module: churn_udf.warehouse.duckdb_plugin, alias: churn, "
            "config: {models_dir: models}}]"
        )
    if variables[CONTEXT_VARIABLE] is None:
        raise SettingsError(
            "int_inputs_scored ran without its pre-hook churn_scoring.set_scoring_context(); "
            "do not override the model's hooks"
        )
    document = json.loads(variables[CONTEXT_VARIABLE])
    spine = document["cutoffs_relation"]
    built = (
        session.cursor()
        .execute(f"select cutoff_date, settings_hash from {spine} where is_score_cutoff")
        .fetchall()
    )
    return ScoringContext(
        settings=ModelSettings.from_mapping(document["settings"]),
        feature_names=tuple(document["feature_names"]),
        examples_relation=document["examples_relation"],
        cache_relation=document["cache_relation"],
        unscorable_relation=document["unscorable_relation"],
        unscorable_rows=document["unscorable_rows"],
        cutoff_date=built[0][0] if built else None,
        built_settings_hash=built[0][1] if built else None,
        settings_hash=document["settings_hash"],
        is_full_refresh=bool(document["is_full_refresh"]),
        models_dir=models_dir_of(variables[MODELS_DIR_VARIABLE]),
        device=str(variables[DEVICE_VARIABLE] or "auto"),
        relations=document.get("relations", {}),
    )


def _unscorable_inputs(session: Any, context: ScoringContext) -> UnscorableInputs:
    """Open the table of inputs that cannot be scored."""
    return UnscorableInputs(
        session,
        relation=context.unscorable_relation,
        examples=context.examples_relation,
        cutoff_date=context.cutoff_date,
    )


def require_fresh(context: ScoringContext) -> None:
    """Refuse inputs that were built with other vars than this run's."""
    built = context.built_settings_hash
    if built is not None and built != context.settings_hash:
        raise SettingsError(
            "churn_examples was built with other churn__ vars than this run's; run "
            "`dbt build` with the same --vars, or select `+churn_scores`"
        )


def _require_complete(cache: ScoreCache) -> None:
    """Check that each input has score or reason: a bug of ours, or rows changed meanwhile."""
    missing = cache.count_missing()
    if missing:
        raise ScoringError(
            f"{missing:,} inputs have no score although all were looked at; churn_examples changed "
            "while scoring ran; run `dbt build` again"
        )


def _score_missing(
    cache: ScoreCache,
    unscorable: UnscorableInputs,
    scorer: Scorer,
    num_missing: int,
    log: Callable[[str], None],
    interruption: Interruption,
) -> None:
    """Score, store and report chunk by chunk.

    The next chunks are read and made tokens on one thread and the last ones written on another
    while the model computes. Inputs are distinct by their hash.
    """
    progress = Progress(num_missing, log)
    sizes = Chunks(FIRST_CHUNK_ROWS, CHUNK_SECONDS)
    batches = cache.read_missing(scorer.bundle.feature_names)
    chunks = (chunk for batch in batches for chunk in sizes.cut(batch))
    encoded = made_ahead(((chunk, scorer.tokens(chunk)) for chunk in chunks), WAITING_CHUNKS)

    def store(waiting: list[pa.RecordBatch]) -> None:
        """Write what waits in one commit."""
        scored_at = datetime.now(timezone.utc).replace(tzinfo=None)
        cache.insert(pa.Table.from_batches(waiting), scored_at=scored_at)

    with UsedBehind(store, WAITING_CHUNKS) as writer, contextlib.closing(encoded):
        for chunk, tokens in encoded:
            began = time.monotonic()
            scores, listed = scorer.score_or_list(chunk, tokens=tokens, is_distinct=True)
            if listed.num_rows:
                noted_at = datetime.now(timezone.utc).replace(tzinfo=None)
                unscorable.insert(listed, bundle_id=scorer.bundle.bundle_id, noted_at=noted_at)
            writer.put(scores)
            sizes.took(chunk.num_rows, time.monotonic() - began)
            progress.add(chunk.num_rows)
            interruption.check()
    progress.finish()


def dbt_logger() -> Callable[[str], None]:
    """Return a function that writes to dbt's console and log file."""
    from dbt.adapters.events.logging import AdapterLogger

    logger = AdapterLogger("churn scoring")
    return lambda message: logger.info(message)


def warn(message: str) -> None:
    """Issue a dbt warning, which `dbt --warn-error` makes an error."""
    from dbt.adapters.events.types import AdapterEventWarning
    from dbt_common.events.contextvars import get_node_info
    from dbt_common.events.functions import warn_or_error

    warn_or_error(
        AdapterEventWarning(name="churn scoring", base_msg=message, node_info=get_node_info())
    )
