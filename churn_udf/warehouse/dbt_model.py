"""Body of the dbt Python model ``int_inputs_scored``: score what is not scored yet.

The model's pre-hook leaves the settings, feature list and relation names in a session
variable (macro ``set_scoring_context``); the plugin leaves the models directory in another.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
from collections.abc import Callable, Iterator
from datetime import date, datetime, timezone
from pathlib import Path
from typing import Any

import pyarrow as pa

from churn_udf.bundle_store import bundle_directory, open_bundle, read_champion
from churn_udf.contracts.settings import ModelSettings
from churn_udf.errors import ScoringError, SettingsError
from churn_udf.overlap import UsedBehind, made_ahead
from churn_udf.scoring import Scorer
from churn_udf.warehouse import CONTEXT_VARIABLE, DEVICE_VARIABLE, MODELS_DIR_VARIABLE
from churn_udf.warehouse.champion_scorers import scorer_of
from churn_udf.warehouse.score_cache import CACHE_SCHEMA, ScoreCache

PROGRESS_SECONDS = 5.0
CHUNK_SECONDS = 3.0
"""A chunk is what a kill can lose, and what progress is told after."""
FIRST_CHUNK_ROWS = 512
WAITING_CHUNKS = 2
"""Chunks read ahead of the model, and chunks scored that wait to be written."""

LoadScorer = Callable[..., Scorer]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScoringContext:
    """What dbt tells the Python model."""

    settings: ModelSettings
    feature_names: tuple[str, ...]
    examples_relation: str
    cache_relation: str
    cutoff_date: date | None
    """The score cutoff; none when nothing was built (``dbt build --empty``)."""
    built_settings_hash: str | None
    """Settings that churn_examples was built with, as the cutoff spine says."""
    settings_hash: str
    """Settings of this run."""
    is_full_refresh: bool
    models_dir: Path
    device: str


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
        ScoringError: A row cannot be scored; what was scored before it is kept.
        SettingsError: The profile lacks the plugin, or ``churn_examples`` is out of date.
    """
    context = read_context(session)
    log = _logger()
    champion = read_champion(context.models_dir)
    if champion is None:
        log(
            f"no champion yet in {context.models_dir}: churn_scores stays as it is; "
            "run `churn-train run` to train and promote a model, then `dbt build` again"
        )
        return pa.RecordBatchReader.from_batches(CACHE_SCHEMA, [])
    bundle = open_bundle(
        bundle_directory(context.models_dir, champion.bundle_id),
        settings=context.settings,
        feature_names=context.feature_names,
    )
    _require_fresh(context)
    cache = ScoreCache(
        session,
        relation=context.cache_relation,
        examples=context.examples_relation,
        cutoff_date=context.cutoff_date,
        bundle_id=bundle.bundle_id,
    )
    if context.is_full_refresh:
        cache.clear()
    num_inputs, num_missing = cache.plan()
    log(
        f"champion {bundle.bundle_id}: {num_inputs:,} distinct inputs at the score cutoff, "
        f"{num_missing:,} to score"
    )
    if num_missing:
        scorer = load_scorer(bundle, context.models_dir, device=context.device)
        _score_missing(cache, scorer, num_missing, log)
        _require_complete(cache)
    return cache.read_current()


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
        cutoff_date=built[0][0] if built else None,
        built_settings_hash=built[0][1] if built else None,
        settings_hash=document["settings_hash"],
        is_full_refresh=bool(document["is_full_refresh"]),
        models_dir=Path(variables[MODELS_DIR_VARIABLE]),
        device=str(variables[DEVICE_VARIABLE] or "auto"),
    )


def _require_fresh(context: ScoringContext) -> None:
    """Refuse inputs that were built with other vars than this run's."""
    built = context.built_settings_hash
    if built is not None and built != context.settings_hash:
        raise SettingsError(
            "churn_examples was built with other churn__ vars than this run's; run "
            "`dbt build` with the same --vars, or select `+churn_scores`"
        )


def _require_complete(cache: ScoreCache) -> None:
    """Check that no input is left without a score: a bug of ours, or rows changed meanwhile."""
    missing = cache.count_missing()
    if missing:
        raise ScoringError(
            f"{missing:,} inputs have no score although all were scored; churn_examples changed "
            "while scoring ran; run `dbt build` again"
        )


def _score_missing(
    cache: ScoreCache, scorer: Scorer, num_missing: int, log: Callable[[str], None]
) -> None:
    """Score, store and report chunk by chunk.

    The next chunks are read and made tokens on one thread and the last ones written on another
    while the model computes. Inputs are distinct by their hash.
    """
    progress = Progress(num_missing, log)
    batches = cache.read_missing(scorer.bundle.feature_names)
    chunks = (chunk for batch in batches for chunk in _chunks(batch, progress))
    encoded = made_ahead(((chunk, scorer.tokens(chunk)) for chunk in chunks), WAITING_CHUNKS)

    def store(waiting: list[pa.RecordBatch]) -> None:
        """Write what waits in one commit."""
        scored_at = datetime.now(timezone.utc).replace(tzinfo=None)
        cache.insert(pa.Table.from_batches(waiting), scored_at=scored_at)

    with UsedBehind(store, WAITING_CHUNKS) as writer, contextlib.closing(encoded):
        for chunk, tokens in encoded:
            writer.put(scorer.score_batch(chunk, tokens=tokens, is_distinct=True))
            progress.add(chunk.num_rows)
    progress.finish()


def _chunks(batch: pa.RecordBatch, progress: Progress) -> Iterator[pa.RecordBatch]:
    """Cut a batch into parts that take a few seconds each."""
    start = 0
    while start < batch.num_rows:
        rows = max(FIRST_CHUNK_ROWS, int(progress.rows_per_second * CHUNK_SECONDS))
        yield batch.slice(start, rows)
        start += rows


class Progress:
    """Counts rows and reports rate and time left every few seconds.

    Args:
        total: Rows to score, >= 1.
        log: Where a line goes.
        clock: Seconds, monotonic.
    """

    def __init__(
        self,
        total: int,
        log: Callable[[str], None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._total = total
        self._log = log
        self._clock = clock
        self._started = self._reported = clock()
        self._done = 0

    @property
    def rows_per_second(self) -> float:
        """Mean rate so far."""
        return self._done / max(self._clock() - self._started, 1e-9)

    def add(self, rows: int) -> None:
        """Count rows, and report if the last report is old enough."""
        self._done += rows
        now = self._clock()
        if now - self._reported >= PROGRESS_SECONDS:
            self._reported = now
            rate = self.rows_per_second
            left = (self._total - self._done) / max(rate, 1e-9)
            self._log(
                f"scored {self._done:,} of {self._total:,} rows, {rate:,.0f} rows/s, "
                f"{_duration(left)} left"
            )

    def finish(self) -> None:
        """Report the whole."""
        self._log(
            f"scored {self._done:,} rows in {_duration(self._clock() - self._started)} "
            f"({self.rows_per_second:,.0f} rows/s)"
        )


def _duration(seconds: float) -> str:
    """Return ``12 s`` or ``3 min 05 s``."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def _logger() -> Callable[[str], None]:
    """Return a function that writes to dbt's console and log file."""
    from dbt.adapters.events.logging import AdapterLogger

    logger = AdapterLogger("churn scoring")
    return lambda message: logger.info(message)
