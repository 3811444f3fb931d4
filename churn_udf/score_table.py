"""Scores as rows of a table: tiers, flags and reasons beside the probabilities."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from churn_udf.contracts.scores import SCORE_SCHEMA
from churn_udf.thresholds import Thresholds

FloatArray = npt.NDArray[np.float64]

MIN_REASON_EFFECT = 0.05
"""A group that raises the risk by less (in logits) is not worth naming as the reason."""


@dataclasses.dataclass(frozen=True)
class Scores:
    """Scores of B rows, all finite.

    Attributes:
        logits: (B,) float64, uncalibrated.
        probabilities: (B,) float64 in (0, 1), calibrated.
        effects: (B, G) float64, by how many logits each group raises the risk; (B, 0) if not
            wanted.
    """

    logits: FloatArray
    probabilities: FloatArray
    effects: FloatArray


def score_table(
    hashes: pa.Array,
    scores: Scores,
    flags: npt.NDArray[np.bool_],
    thresholds: Thresholds,
    group_names: Sequence[str],
) -> pa.RecordBatch:
    """Return scores as ``SCORE_SCHEMA`` rows.

    Args:
        hashes: (B,) input hashes.
        scores: With effects of all G groups.
        flags: (B,) which rows are flagged.
        thresholds: Give the tiers.
        group_names: (G,) names of the groups.
    """
    num_rows, num_groups = scores.effects.shape
    order = np.argsort(-scores.effects, axis=1, kind="stable")
    ranked = np.take_along_axis(scores.effects, order, axis=1)
    names = pa.array(group_names, pa.string()).take(pa.array(order.ravel()))
    offsets = pa.array(np.arange(num_rows + 1) * num_groups, pa.int32())
    is_worth_naming = pa.array(ranked[:, 0] > MIN_REASON_EFFECT)
    strongest = pc.take(names, pa.array(np.arange(num_rows) * num_groups))
    columns = {
        "input_hash": hashes,
        "churn_logit": pa.array(scores.logits),
        "churn_probability": pa.array(scores.probabilities),
        "risk_tier": thresholds.tiers_of(scores.probabilities),
        "is_flagged": pa.array(flags),
        "top_reason": pc.if_else(is_worth_naming, strongest, pa.scalar(None, pa.string())),
        "reason_groups": pa.ListArray.from_arrays(offsets, names),
        "reason_effects": pa.ListArray.from_arrays(offsets, pa.array(ranked.ravel())),
    }
    return pa.RecordBatch.from_arrays(
        [columns[name] for name in SCORE_SCHEMA.names], schema=SCORE_SCHEMA
    )
