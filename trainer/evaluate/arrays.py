"""Array aliases and input checks shared by the evaluation modules."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
AnyArray = npt.NDArray[Any]


def as_labels(labels: npt.ArrayLike) -> FloatArray:
    """Return labels as 0.0 / 1.0.

    Args:
        labels: (N,) bool or 0/1 numbers, N >= 1.

    Raises:
        ValueError: If empty, not one-dimensional, or holding anything but 0 and 1.
    """
    array = np.asarray(labels)
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"labels must be a non-empty (N,) array; got shape {array.shape}")
    try:
        numbers = array.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"labels must be bool or 0/1 numbers; got dtype {array.dtype}") from error
    bad = ~((numbers == 0.0) | (numbers == 1.0))
    if bad.any():
        raise ValueError(f"labels must be 0 or 1; got {numbers[bad][0]!r} at row {bad.argmax()}")
    return numbers


def as_finite(name: str, values: npt.ArrayLike, num_rows: int) -> FloatArray:
    """Return `values` as (num_rows,) float64.

    Raises:
        ValueError: If the length differs from `num_rows` or a value is not finite.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.shape != (num_rows,):
        raise ValueError(f"{name} must have shape ({num_rows},) like the labels; got {array.shape}")
    bad = ~np.isfinite(array)
    if bad.any():
        raise ValueError(f"{name} must be finite; got {array[bad][0]!r} at row {bad.argmax()}")
    return array


def as_probabilities(values: npt.ArrayLike, num_rows: int) -> FloatArray:
    """Return `values` as (num_rows,) float64 in [0, 1].

    Raises:
        ValueError: If the length differs, or a value is not finite or outside [0, 1].
    """
    array = as_finite("probabilities", values, num_rows)
    bad = (array < 0.0) | (array > 1.0)
    if bad.any():
        raise ValueError(
            f"probabilities must lie in [0, 1]; got {array[bad][0]!r} at row {bad.argmax()}: "
            "pass calibrated probabilities, not logits"
        )
    return array


def group_indices(groups: npt.ArrayLike | None, num_rows: int) -> tuple[IntArray, int]:
    """Number the groups 0..G-1 and say which one each row belongs to.

    Args:
        groups: (N,) ids (user ids), or None when every row is its own group.
        num_rows: N.

    Returns:
        (N,) int64 group number per row, and the number of groups.

    Raises:
        ValueError: If the length differs from `num_rows`.
    """
    if groups is None:
        return np.arange(num_rows, dtype=np.int64), num_rows
    ids = np.asarray(groups)
    if ids.shape != (num_rows,):
        raise ValueError(f"groups must have shape ({num_rows},) like the labels; got {ids.shape}")
    unique, inverse = np.unique(ids, return_inverse=True)
    return inverse.reshape(-1).astype(np.int64), int(unique.size)
