"""Fitting a calibrator on validation logits; `churn_udf.calibration` applies it.

Never call this with test rows: a calibrator that has seen them makes the test metrics worthless.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from churn_udf.calibration import Calibrator
from trainer.errors import ConfigError
from trainer.evaluate.arrays import FloatArray, IntArray, as_finite, as_labels, group_indices
from trainer.evaluate.linear import fit_logistic

#: From the simplest to the most flexible; of two that fit alike the earlier one wins.
CALIBRATION_KINDS = ("identity", "temperature", "platt", "beta", "isotonic")
NUM_FOLDS = 5
MIN_ROWS = 200
MIN_CLASS_ROWS = 20
MIN_ISOTONIC_ROWS = 1000
MIN_ISOTONIC_CLASS_ROWS = 50

_TOLERANCE = 1e-4  # nats per row: below it two calibrators are the same for any purpose
_ISOTONIC_GAIN = 5e-4  # its steps give many customers one score: it must pay for their order
_MIN_SLOPE = 0.01  # keeps the map increasing, whatever the rows say
_SLOPE_RIDGE = 1.0  # one row's worth of pull towards the identity
_INTERCEPT_RIDGE = 0.01


def fit_calibrator(
    logits: npt.ArrayLike,
    labels: npt.ArrayLike,
    groups: npt.ArrayLike | None = None,
    kinds: Sequence[str] = CALIBRATION_KINDS,
    seed: int = 0,
) -> tuple[Calibrator, dict[str, Any]]:
    """Pick the kind with the lowest cross-fitted log loss and fit it on all rows.

    Each kind is fitted on four fifths of the users and judged on the last fifth, in turn. With
    fewer than 200 rows, or fewer than 20 of a class, only identity and temperature are tried;
    isotonic needs 1,000 rows and 50 of each class; with one class it stays at the identity.

    Args:
        logits: (N,) raw validation logits.
        labels: (N,) 0/1.
        groups: (N,) user ids, so that no user is on both sides of a fold; None takes every row
            as its own user.
        kinds: Which kinds to try, of `CALIBRATION_KINDS`.
        seed: Of the folds.

    Returns:
        The calibrator, and a JSON-ready table: chosen, reason, num_rows, base_rate and
        cross_fitted_log_loss {kind: log loss, None where the kind was not tried}.

    Raises:
        ConfigError: If a kind is unknown or none is given.
        ValueError: If the arrays do not fit together or a logit is not finite.
    """
    _check_kinds(kinds)
    labels_N = as_labels(labels)
    logits_N = as_finite("logits", logits, labels_N.size)
    indices_N, num_groups = group_indices(groups, labels_N.size)
    tried, reason = _kinds_to_try(kinds, labels_N)
    losses: dict[str, float | None] = dict.fromkeys(_ordered(kinds))
    if tried == ["identity"] or num_groups < NUM_FOLDS:
        chosen = tried[0]
        too_few = f"only {num_groups} users to cross-fit on, {NUM_FOLDS} needed"
        alone = "the only kind asked for" if len(losses) == 1 else ""
        reason = "; ".join(filter(None, [reason, too_few if num_groups < NUM_FOLDS else alone]))
    else:
        folds_N = _assign_folds(indices_N, num_groups, seed)
        found = {kind: _cross_fitted_loss(kind, logits_N, labels_N, folds_N) for kind in tried}
        losses |= found
        smooth = [loss for kind, loss in found.items() if kind != "isotonic"]
        if smooth and found.get("isotonic", np.inf) > min(smooth) - _ISOTONIC_GAIN:
            found.pop("isotonic", None)
        best = min(found.values())
        chosen = next(kind for kind in found if found[kind] <= best + _TOLERANCE)
        reason = "; ".join(filter(None, [reason, "lowest cross-fitted log loss"]))
    table = {
        "chosen": chosen,
        "reason": reason,
        "num_rows": int(labels_N.size),
        "base_rate": float(labels_N.mean()),
        "cross_fitted_log_loss": losses,
    }
    return _FITTERS[chosen](logits_N, labels_N), table


def _check_kinds(kinds: Sequence[str]) -> None:
    """Refuse unknown kinds and an empty choice."""
    unknown = sorted(set(kinds) - set(CALIBRATION_KINDS))
    if unknown or not kinds:
        raise ConfigError(
            f"calibration kinds: got {list(kinds)}; allowed: one or more of "
            f"{', '.join(CALIBRATION_KINDS)}"
        )


def _ordered(kinds: Sequence[str]) -> list[str]:
    """Return the kinds without repeats, simplest first."""
    return [kind for kind in CALIBRATION_KINDS if kind in kinds]


def _kinds_to_try(kinds: Sequence[str], labels_N: FloatArray) -> tuple[list[str], str]:
    """Drop the kinds that the rows cannot support, and say why."""
    num_rows = labels_N.size
    fewest = int(min(labels_N.sum(), num_rows - labels_N.sum()))
    ordered = _ordered(kinds)
    if fewest == 0:
        return ["identity"], "the rows hold one class only: nothing to calibrate on"
    if num_rows < MIN_ROWS or fewest < MIN_CLASS_ROWS:
        simple = [kind for kind in ordered if kind in ("identity", "temperature")]
        return simple or ordered[:1], (
            f"few rows ({num_rows}, {fewest} of the rarer class): simplest kinds only"
        )
    too_few = num_rows < MIN_ISOTONIC_ROWS or fewest < MIN_ISOTONIC_CLASS_ROWS
    if "isotonic" in ordered and too_few and len(ordered) > 1:
        ordered.remove("isotonic")
        return ordered, f"isotonic left out: it needs {MIN_ISOTONIC_ROWS} rows, got {num_rows}"
    return ordered, ""


def _assign_folds(indices_N: IntArray, num_groups: int, seed: int) -> IntArray:
    """Deal the users out to folds at random, as evenly as can be."""
    shuffled = np.random.default_rng(seed).permutation(num_groups)
    fold_of_group = np.empty(num_groups, dtype=np.int64)
    fold_of_group[shuffled] = np.arange(num_groups) % NUM_FOLDS
    return fold_of_group[indices_N]


def _cross_fitted_loss(
    kind: str, logits_N: FloatArray, labels_N: FloatArray, folds_N: IntArray
) -> float:
    """Mean log loss of rows whose users took no part in the fit."""
    probabilities_N = np.empty_like(logits_N)
    for fold in range(NUM_FOLDS):
        held_out = folds_N == fold
        fitted = _FITTERS[kind](logits_N[~held_out], labels_N[~held_out])
        probabilities_N[held_out] = fitted.apply(logits_N[held_out])
    chance_N = np.where(labels_N == 1.0, probabilities_N, 1.0 - probabilities_N)
    return float(-np.mean(np.log(chance_N)))


def _fit_identity(logits_N: FloatArray, labels_N: FloatArray) -> Calibrator:
    """Leave the logits as they are."""
    return Calibrator(kind="identity", params={})


def _fit_temperature(logits_N: FloatArray, labels_N: FloatArray) -> Calibrator:
    """One slope through the origin."""
    (slope,) = fit_logistic(
        logits_N[:, None],
        labels_N,
        ridge_F=np.array([_SLOPE_RIDGE]),
        centre_F=np.array([1.0]),
        lower_F=np.array([_MIN_SLOPE]),
    )
    return Calibrator(kind="temperature", params={"temperature": [1.0 / float(slope)]})


def _fit_platt(logits_N: FloatArray, labels_N: FloatArray) -> Calibrator:
    """Slope and intercept."""
    slope, intercept = fit_logistic(
        np.column_stack([logits_N, np.ones_like(logits_N)]),
        labels_N,
        ridge_F=np.array([_SLOPE_RIDGE, _INTERCEPT_RIDGE]),
        centre_F=np.array([1.0, 0.0]),
        lower_F=np.array([_MIN_SLOPE, -np.inf]),
    )
    return Calibrator(kind="platt", params={"a": [float(slope)], "b": [float(intercept)]})


def _fit_beta(logits_N: FloatArray, labels_N: FloatArray) -> Calibrator:
    """One slope for each end of the scale, and an intercept."""
    log_chance = -np.logaddexp(0.0, -logits_N)
    minus_log_rest = np.logaddexp(0.0, logits_N)
    low, high, intercept = fit_logistic(
        np.column_stack([log_chance, minus_log_rest, np.ones_like(logits_N)]),
        labels_N,
        ridge_F=np.array([_SLOPE_RIDGE, _SLOPE_RIDGE, _INTERCEPT_RIDGE]),
        centre_F=np.array([1.0, 1.0, 0.0]),
        lower_F=np.array([_MIN_SLOPE, _MIN_SLOPE, -np.inf]),
    )
    params = {"a": [float(low)], "b": [float(high)], "c": [float(intercept)]}
    return Calibrator(kind="beta", params=params)


def _fit_isotonic(logits_N: FloatArray, labels_N: FloatArray) -> Calibrator:
    """Piecewise-linear curve through the pooled blocks, each pulled to the base rate by one row."""
    distinct, inverse = np.unique(logits_N, return_inverse=True)
    sizes = np.bincount(inverse).astype(np.float64)
    churned = np.bincount(inverse, weights=labels_N).astype(np.float64)
    starts = _pool_violators(churned, sizes)
    block_sizes = np.add.reduceat(sizes, starts)
    x = np.add.reduceat(sizes * distinct, starts) / block_sizes
    base_rate = labels_N.mean()
    y = (np.add.reduceat(churned, starts) + base_rate) / (block_sizes + 1.0)
    knots = {"x": x.tolist(), "y": np.maximum.accumulate(y).tolist()}
    return Calibrator(kind="isotonic", params=knots)


def _pool_violators(churned: FloatArray, sizes: FloatArray) -> IntArray:
    """Return where the blocks of the isotonic fit start (pool adjacent violators)."""
    blocks: list[tuple[float, float, int]] = []
    for index, (hits, size) in enumerate(zip(churned.tolist(), sizes.tolist(), strict=True)):
        start = index
        while blocks and blocks[-1][0] * size >= hits * blocks[-1][1]:
            before_hits, before_size, start = blocks.pop()
            hits, size = hits + before_hits, size + before_size
        blocks.append((hits, size, start))
    return np.array([start for _, _, start in blocks], dtype=np.int64)


_FITTERS: dict[str, Callable[[FloatArray, FloatArray], Calibrator]] = {
    "identity": _fit_identity,
    "temperature": _fit_temperature,
    "platt": _fit_platt,
    "beta": _fit_beta,
    "isotonic": _fit_isotonic,
}
