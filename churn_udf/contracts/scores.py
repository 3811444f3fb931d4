"""Schemas of what goes into scoring and what comes out."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

SCORE_SCHEMA = pa.schema(
    [
        pa.field("input_hash", pa.string(), nullable=False),
        pa.field("churn_logit", pa.float64(), nullable=False),
        pa.field("churn_probability", pa.float64(), nullable=False),
        pa.field("risk_tier", pa.string(), nullable=False),
        pa.field("is_flagged", pa.bool_(), nullable=False),
        pa.field("top_reason", pa.string(), nullable=True),
        pa.field("reason_groups", pa.list_(pa.string()), nullable=False),
        pa.field("reason_effects", pa.list_(pa.float64()), nullable=False),
    ]
)
"""One row per distinct input. ``churn_logit`` is the raw model output, ``churn_probability`` its
calibrated value; ``reason_groups`` names feature groups, strongest first, and
``reason_effects`` the logits by which each raises the risk against a typical customer."""


def input_schema(feature_names: Sequence[str]) -> pa.Schema:
    """Return the schema of scoring input: hash, two texts, then the features in order."""
    return pa.schema(
        [
            pa.field("input_hash", pa.string(), nullable=False),
            pa.field("behavior_text", pa.string(), nullable=False),
            pa.field("review_text_recent", pa.string(), nullable=False),
            *(pa.field(name, pa.float64(), nullable=True) for name in feature_names),
        ]
    )
