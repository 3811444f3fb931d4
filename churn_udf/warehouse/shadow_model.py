"""Body of the dbt Python model ``int_inputs_scored_by_shadows``.

Models in stage ``shadow`` score what the champion has scored, after it and one by one. Nothing that
goes wrong with one of them fails the build: it is left out, with a warning.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa

from churn_udf.bundle_store import bundle_directory, open_bundle
from churn_udf.errors import ChurnError
from churn_udf.registry import Registry, read_registry
from churn_udf.warehouse import dbt_model
from churn_udf.warehouse.champion_scorers import forget_scorer, scorer_of
from churn_udf.warehouse.dbt_model import LoadScorer, ScoringContext
from churn_udf.warehouse.interruption import Interruption
from churn_udf.warehouse.score_cache import CACHE_SCHEMA, ScoreCache
from churn_udf.warehouse.unscorable_inputs import UnscorableInputs

UNSCORABLE_TABLE = "churn_unscorable_by_others"
"""Name, in the context, of the durable table of inputs that other models than the champion cannot
score. It keeps what any of them could not, as long as the input is at the score cutoff."""


def model(dbt: Any, session: Any, *, load_scorer: LoadScorer = scorer_of) -> pa.RecordBatchReader:
    """Return each shadow's score of every distinct input at the score cutoff.

    Args:
        dbt: The object dbt hands to Python models.
        session: dbt's DuckDB cursor.
        load_scorer: How a bundle becomes a scorer.

    Returns:
        ``CACHE_SCHEMA`` rows, one per shadow and distinct input; none without champion or shadow,
        and none of a shadow that cannot be used.

    Raises:
        ScoringError: dbt was interrupted.
        SettingsError: The profile lacks the plugin, or ``churn_examples`` is out of date.
    """
    with dbt_model.one_at_a_time:
        return _score_shadows(session, dbt_model.read_context(session), load_scorer)


def open_unscorable(session: Any, context: ScoringContext) -> UnscorableInputs:
    """Open the table of inputs that other models than the champion cannot score."""
    return UnscorableInputs(
        session,
        relation=context.relations[UNSCORABLE_TABLE],
        examples=context.examples_relation,
        cutoff_date=context.cutoff_date,
    )


def _score_shadows(
    session: Any, context: ScoringContext, load_scorer: LoadScorer
) -> pa.RecordBatchReader:
    """Do what ``model`` says."""
    log = dbt_model.dbt_logger()
    unscorable = open_unscorable(session, context)
    problems: list[str] = []
    registry = _registry(context, problems)
    caches: dict[str, ScoreCache] = {}
    if registry.champion_id is not None and registry.shadow_ids:
        dbt_model.require_fresh(context)
        with Interruption(session, log) as interruption:
            if context.is_full_refresh:
                unscorable.clear()
            for bundle_id in registry.shadow_ids:
                found = _score_one(
                    session, context, bundle_id, unscorable, load_scorer, log, interruption
                )
                if isinstance(found, ScoreCache):
                    caches[bundle_id] = found
                else:
                    problems.append(found)
    unscorable.keep_current()
    for problem in problems:
        dbt_model.warn(problem)
    if not caches:
        return pa.RecordBatchReader.from_batches(CACHE_SCHEMA, [])
    first, *others = caches
    return caches[first].read_current(*others)


def _score_one(
    session: Any,
    context: ScoringContext,
    bundle_id: str,
    unscorable: UnscorableInputs,
    load_scorer: LoadScorer,
    log: Callable[[str], None],
    interruption: Interruption,
) -> ScoreCache | str:
    """Score what one shadow has not scored; return what to tell if it cannot."""
    try:
        bundle = open_bundle(
            bundle_directory(context.models_dir, bundle_id),
            settings=context.settings,
            feature_names=context.feature_names,
        )
        cache = dbt_model.score_inputs(
            session,
            context,
            bundle,
            unscorable,
            role="shadow",
            is_anew=context.is_full_refresh,
            load_scorer=load_scorer,
            log=log,
            interruption=interruption,
        )
    except Exception as error:  # whatever it is: the champion's scores go on
        if interruption.is_asked:
            raise
        return _problem(bundle_id, error)  # as text: the error would keep the model in memory
    finally:
        forget_scorer(bundle_id)
    counted = unscorable.count(bundle_id)
    if counted:
        log(f"shadow {bundle_id}: {counted}: see {unscorable.relation}")
    return cache


def _registry(context: ScoringContext, problems: list[str]) -> Registry:
    """Return the registry; an empty one if it cannot be read, which is noted as a problem."""
    try:
        return read_registry(context.models_dir)
    except ChurnError as error:
        problems.append(f"no shadow scores in this build: {error}")
        return Registry()


def _problem(bundle_id: str, error: Exception) -> str:
    """Return what to tell of a shadow that could not score."""
    kind = "" if isinstance(error, ChurnError) else f"{type(error).__name__}: "
    return (
        f"shadow {bundle_id} is left out of this build; the champion's scores are not affected. "
        f"{kind}{error}. Cure that, or take it out with `churn-train models retire {bundle_id}`"
    )
