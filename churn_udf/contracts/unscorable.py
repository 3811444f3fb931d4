"""Schema and reason codes of rows that cannot be given a score.

The codes are stable: tables, tests and alerts of users name them.
"""

from __future__ import annotations

import pyarrow as pa

NULL_INPUT_HASH = "null_input_hash"
"""The row has no content hash, so that a score of it could not be kept."""
NULL_USER_ID = "null_user_id"
"""The row belongs to nobody."""
NULL_TEXT = "null_text"
"""A text is null; one without content is empty."""
INFINITE_FEATURE = "infinite_feature"
"""A feature is plus or minus infinity; an unknown one is null."""
INVALID_VALUE = "invalid_value"
"""A cell cannot be read as its column's type."""
SCORE_NOT_FINITE = "score_not_finite"
"""The model's result for the row is infinite or not a number."""

UNSCORABLE_REASONS = (
    NULL_INPUT_HASH,
    NULL_USER_ID,
    NULL_TEXT,
    INFINITE_FEATURE,
    INVALID_VALUE,
    SCORE_NOT_FINITE,
)
"""All reason codes."""

UNSCORABLE_SCHEMA = pa.schema(
    [
        pa.field("row_index", pa.int64(), nullable=False),
        pa.field("input_hash", pa.string(), nullable=True),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("column_name", pa.string(), nullable=False),
        pa.field("value", pa.string(), nullable=True),
        pa.field("detail", pa.string(), nullable=False),
    ]
)
"""One row per row and reason. ``row_index`` counts from 0 within the batch that was given;
``column_name`` and ``value`` are the first cell at fault and what it held; ``detail`` is a
sentence with both, how many more cells, and what is allowed."""
