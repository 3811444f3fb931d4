"""Parity: the warehouse's scores against offline scores of the same rows."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pyarrow as pa

from churn_udf.bundle_store import Bundle, open_champion
from churn_udf.model.precision import FP32, Precision, read_precision
from churn_udf.models_location import ModelsDir
from churn_udf.scoring import Scorer
from churn_udf.warehouse.udf import make_churn_score
from trainer.data.warehouse import ChurnContext, Warehouse
from trainer.errors import ParityError

MAX_DIFFERENCE = 1e-5
DEFAULT_ROWS = 2_000
CANDIDATE_FUNCTION = "churn_score_candidate"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ParityReport:
    """How far apart the doors are, as largest absolute difference of a probability."""

    bundle_id: str
    num_rows: int
    table_difference: float
    """``churn_scores`` against offline."""
    function_difference: float
    """The SQL function against offline."""


def compare_with_warehouse(
    warehouse: Warehouse,
    models_dir: ModelsDir,
    *,
    max_rows: int = DEFAULT_ROWS,
    device: str = "auto",
) -> ParityReport:
    """Score rows of ``churn_scores`` offline and through SQL, and compare.

    Args:
        warehouse: Where the scores are.
        models_dir: Where the champion is.
        max_rows: Rows to compare, spread over the whole table by hash.
        device: Where the offline model runs.

    Raises:
        ParityError: No row of the champion, or a difference above 1e-5 in fp32; in a faster
            mode above what the packaging check allowed, as batches then leave a trace.
        BundleError: The champion does not fit the warehouse.
    """
    context = warehouse.context
    bundle = open_champion(
        models_dir,
        settings=context.model_settings,
        feature_names=[feature.name for feature in context.features],
    )
    with warehouse.cursor() as cursor:
        table = warehouse.stream(cursor, _query(context, bundle.bundle_id, max_rows)).read_all()
    if not table.num_rows:
        raise ParityError(
            f"churn_scores has no row of the champion {bundle.bundle_id}; run `dbt build` to score"
        )
    offline = _score_offline(Scorer.load(bundle, device=device), table)
    report = ParityReport(
        bundle_id=bundle.bundle_id,
        num_rows=table.num_rows,
        table_difference=_difference(offline, table.column("table_probability")),
        function_difference=_difference(offline, table.column("function_probability")),
    )
    worst = max(report.table_difference, report.function_difference)
    allowed = allowed_difference(read_precision(bundle.directory))
    if not worst <= allowed:
        raise ParityError(
            f"warehouse and offline scores of bundle {bundle.bundle_id} differ by up to "
            f"{worst:.2e} on {report.num_rows} rows (churn_scores {report.table_difference:.2e}, "
            f"churn_score() {report.function_difference:.2e}); allowed: {allowed:.0e}. "
            "Check that dbt and churn-train use the same models folder, then run `dbt build`"
        )
    return report


@dataclasses.dataclass(frozen=True, kw_only=True)
class CandidateParity:
    """How far the warehouse's scores of a bundle lie from offline ones."""

    num_rows: int
    difference: float
    """Largest absolute difference of a probability."""
    allowed: float


def compare_candidate(
    warehouse: Warehouse, bundle: Bundle, *, max_rows: int = DEFAULT_ROWS, device: str = "auto"
) -> CandidateParity:
    """Score newest rows of ``churn_examples`` with any bundle, inside DuckDB and offline.

    The bundle need not be the champion: its SQL function has a name of its own.

    Args:
        warehouse: Where the rows are.
        bundle: A verified bundle that fits the warehouse.
        max_rows: Rows to compare, spread over the newest cutoff by hash.
        device: Where both models run.

    Raises:
        ParityError: There is no row.
        WarehouseError: The rows cannot be read or scored.
        ScoringError: They cannot be scored offline.
    """
    context = warehouse.context
    examples = context.relation("churn_examples")
    names = [f'"{feature.name}"' for feature in context.features]
    query = f"""
        with sampled as (
            select input_hash, behavior_text, review_text_recent, {", ".join(names)}
            from {examples}
            where cutoff_date = (select max(cutoff_date) from {examples})
            order by md5(user_id)
            limit {int(max_rows)}
        )
        select *, {CANDIDATE_FUNCTION}(
            behavior_text, review_text_recent, [{", ".join(names)}]
        ) as function_probability
        from sampled
    """
    inside = Scorer.load(bundle, device=device)
    with warehouse.cursor() as cursor:
        cursor.create_function(
            CANDIDATE_FUNCTION,
            make_churn_score(lambda: inside),
            ["VARCHAR", "VARCHAR", "DOUBLE[]"],
            "DOUBLE",
            type="arrow",
            null_handling="special",
        )
        try:
            table = warehouse.stream(cursor, query).read_all()
        finally:
            cursor.remove_function(CANDIDATE_FUNCTION)
    if not table.num_rows:
        raise ParityError("churn_examples has no row; run `dbt build`")
    offline = _score_offline(Scorer.load(bundle, device=device), table)
    return CandidateParity(
        num_rows=table.num_rows,
        difference=_difference(offline, table.column("function_probability")),
        allowed=allowed_difference(read_precision(bundle.directory)),
    )


def allowed_difference(precision: Precision) -> float:
    """Return how far two doors may be apart with a bundle of this precision."""
    if precision.mode == FP32:
        return MAX_DIFFERENCE
    return float(precision.check["bounds"]["max_probability_change"])


def _query(context: ChurnContext, bundle_id: str, max_rows: int) -> str:
    """Return the query: inputs, the table's score and the function's score of the same rows."""
    names = [feature.name for feature in context.features]
    features = ", ".join(f'examples."{name}"' for name in names)
    return f"""
        with sampled as (
            select
                examples.input_hash,
                examples.behavior_text,
                examples.review_text_recent,
                {features},
                scores.churn_probability as table_probability
            from {context.relation("churn_scores")} as scores
            inner join {context.relation("churn_examples")} as examples
                on scores.user_id = examples.user_id
                and scores.cutoff_date = examples.cutoff_date
                and scores.input_hash = examples.input_hash
            where scores.bundle_id = '{bundle_id}'
            order by md5(scores.user_id || cast(scores.cutoff_date as varchar))
            limit {int(max_rows)}
        )
        select
            *,
            churn_score(
                behavior_text,
                review_text_recent,
                [{", ".join(f'"{name}"' for name in names)}]
            ) as function_probability
        from sampled
    """


def _score_offline(scorer: Scorer, table: pa.Table) -> Any:
    """Return (N,) offline probabilities of the table's rows."""
    batches = table.combine_chunks().to_batches()
    scored = [batch.column("churn_probability") for batch in scorer.score_batches(batches)]
    return pa.concat_arrays(scored).to_numpy()


def _difference(offline: Any, column: pa.ChunkedArray) -> float:
    """Return the largest absolute difference; a missing score counts as infinitely far."""
    values = column.to_numpy()
    return float(np.max(np.where(np.isfinite(values), np.abs(values - offline), np.inf)))
