"""Body of the SQL function ``churn_score(behavior_text, review_text, features)``."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from churn_udf.bundle_store import require_match
from churn_udf.contracts.settings import ModelSettings
from churn_udf.errors import ScoringError
from churn_udf.scoring import Scorer

FUNCTION_NAME = "churn_score"
CHECKED_FUNCTION_NAME = "churn_score_checked"
ONCE_FUNCTION_NAME = "churn_score_once"
"""The checked function, registered so that DuckDB neither moves nor copies its calls."""
CALL_HINT = (
    "call it through the dbt macro {{ churn_scoring.churn_score('churn_examples') }}, which "
    "lists the features in the model's order"
)


def make_churn_score(get_scorer: Callable[[], Scorer]) -> Callable[[Any, Any, Any], pa.Array]:
    """Return the vectorised function that DuckDB calls with up to 2,048 rows.

    Args:
        get_scorer: Returns the champion's scorer; called once a batch that has a row to score.
    """

    def churn_score(behavior_text: Any, review_text: Any, features: Any) -> pa.Array:
        """Score the rows that have a behaviour text; the others give null."""
        behavior, review, lists = map(_flat, (behavior_text, review_text, features))
        has_text = pc.is_valid(behavior)
        if not pc.any(has_text).as_py():
            return pa.nulls(len(behavior), pa.float64())
        scorer = get_scorer()
        lists = lists.filter(has_text)
        scores = scorer.score_arrays(
            behavior.filter(has_text),
            pc.fill_null(review.filter(has_text), ""),
            _feature_matrix(lists, len(scorer.bundle.feature_names)),
            with_effects=False,
        )
        probabilities = np.full(len(behavior), np.nan)
        probabilities[has_text.to_numpy(zero_copy_only=False)] = scores.probabilities
        return pa.array(probabilities, pa.float64(), from_pandas=True)

    return churn_score


def make_checked_churn_score(
    get_scorer: Callable[[], Scorer],
) -> Callable[[Any, Any, Any, Any], pa.Array]:
    """Return ``churn_score`` with a fourth argument: what the rows were built with.

    The dbt macro passes the warehouse's settings and feature names as one JSON constant, so
    that a model of other windows, text or features is refused as in the Python model.

    Args:
        get_scorer: Returns the champion's scorer.
    """
    score = make_churn_score(get_scorer)
    verified: set[tuple[str, str]] = set()

    def churn_score_checked(
        behavior_text: Any, review_text: Any, features: Any, contract: Any
    ) -> pa.Array:
        """Check the contract once for each model, then score."""
        for text in _flat(contract).slice(0, 1).to_pylist():
            bundle = get_scorer().bundle
            if (bundle.bundle_id, text) not in verified:
                document = json.loads(text)
                require_match(
                    bundle.manifest,
                    ModelSettings.from_mapping(document["settings"]),
                    document["feature_names"],
                )
                verified.add((bundle.bundle_id, text))
        return score(behavior_text, review_text, features)

    return churn_score_checked


def _flat(column: Any) -> pa.Array:
    """Return a column as one array; DuckDB hands over arrays or chunked arrays."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    return column


def _feature_matrix(lists: pa.Array, num_features: int) -> np.ndarray[Any, Any]:
    """Return (B, F) float64 with nulls as NaN.

    Raises:
        ScoringError: A list is null or of another length.
    """
    lengths = pc.fill_null(pc.list_value_length(lists), -1)
    is_wrong = pc.not_equal(lengths, num_features)
    if pc.any(is_wrong).as_py():
        found = lengths.filter(is_wrong)[0].as_py()
        what = "null" if found < 0 else f"a list of {found}"
        raise ScoringError(
            f"{FUNCTION_NAME}: features is {what}; allowed: a list of {num_features} numbers, "
            f"null where unknown; {CALL_HINT}"
        )
    values = lists.flatten().cast(pa.float64()).to_numpy(zero_copy_only=False)
    return np.asarray(values, dtype=np.float64).reshape(len(lists), num_features)
