"""Choosing among one model, the trees and a weighted sum of all, out of time.

The members were fitted on training rows and are judged on validation rows, whose labels came
later. The weights of the sum are a logistic regression without negative weights, pulled towards
equal shares as if by a number of rows: on few users nearly the mean, on many what the data say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from churn_udf.model.ensemble import BERT, GBM, KINDS, STACK, Ensemble
from trainer.errors import ConfigError
from trainer.evaluate.arrays import AnyArray, FloatArray, as_labels, group_indices
from trainer.evaluate.base_rates import shifted_log_loss
from trainer.evaluate.linear import fit_logistic

NUM_FOLDS = 5
MIN_WEIGHT = 0.02
"""A member with less is left out: it costs time and changes no score that anyone would notice."""

_PRIOR_SHARES = {BERT: 1.0, GBM: 1.0, "logistic": 1.0, "rfm_logistic": 0.25, "bg_nbd": 0.25}
_MARGIN = 2e-4  # nats per row: of two kinds that fit alike, the one with more members is sturdier


@dataclass(frozen=True, kw_only=True, slots=True)
class EnsembleChoice:
    """Which kind scores, and why."""

    ensemble: Ensemble
    """The chosen one."""
    by_kind: dict[str, Ensemble]
    """Every kind that was possible, for the report."""
    table: dict[str, Any]
    """JSON-ready: chosen, reason, loss and weights by kind."""


def choose_ensemble(
    logits: Mapping[str, FloatArray],
    labels_N: AnyArray,
    user_ids_N: AnyArray,
    *,
    kinds: Sequence[str] = KINDS,
    shrinkage: float = 100.0,
    seed: int = 0,
) -> EnsembleChoice:
    """Pick the kind with the lowest log loss on validation rows, at the best intercept.

    Args:
        logits: Member -> (N,) raw logits of validation rows.
        labels_N: (N,) 0/1.
        user_ids_N: (N,); the stack is judged on users that did not set its weights.
        kinds: Which to try, of ``KINDS``.
        shrinkage: Pull of the weights towards equal shares, in rows' worth; 0 or more.
        seed: Of the folds.

    Raises:
        ConfigError: An unknown kind, or none whose members are there.
    """
    unknown = sorted(set(kinds) - set(KINDS))
    if unknown or not kinds:
        raise ConfigError(
            f"ensemble.kinds is {list(kinds)}; allowed: one or more of {', '.join(KINDS)}"
        )
    labels = as_labels(labels_N)
    by_kind = {kind: Ensemble(kind=kind, weights={kind: 1.0}) for kind in (BERT, GBM)}
    by_kind = {kind: found for kind, found in by_kind.items() if kind in logits}
    losses = {kind: shifted_log_loss(logits[kind], labels) for kind in by_kind}
    if len(logits) > 1:
        weights = fit_weights(logits, labels, shrinkage)
        by_kind[STACK] = Ensemble(kind=STACK, weights=weights)
        losses[STACK] = _cross_fitted_loss(logits, labels, user_ids_N, shrinkage, seed)
    possible = [kind for kind in (STACK, GBM, BERT) if kind in kinds and kind in by_kind]
    if not possible:
        raise ConfigError(
            f"ensemble.kinds is {list(kinds)}, but the members are {', '.join(logits)}; "
            "add the member to ensemble.members or allow another kind"
        )
    lowest = min(losses[kind] for kind in possible)
    chosen = next(kind for kind in possible if losses[kind] <= lowest + _MARGIN)
    reason = "the only kind asked for" if len(possible) == 1 else "lowest validation log loss"
    table = {
        "chosen": chosen,
        "reason": reason,
        "valid_log_loss": losses,
        "weights": {kind: dict(found.weights) for kind, found in by_kind.items()},
    }
    return EnsembleChoice(ensemble=by_kind[chosen], by_kind=by_kind, table=table)


def fit_weights(
    logits: Mapping[str, FloatArray], labels_N: FloatArray, shrinkage: float
) -> dict[str, float]:
    """Return weights of the members, above 0; the intercept is left to the calibrator.

    Args:
        logits: Member -> (N,).
        labels_N: (N,) 0/1.
        shrinkage: Pull towards the prior shares, in rows' worth.
    """
    names = list(logits)
    shares = np.array([_PRIOR_SHARES[name] for name in names])
    centre = np.concatenate([[0.0], shares / shares.sum()])
    design_NM = np.column_stack([np.ones(labels_N.size), *(logits[name] for name in names)])
    ridge = np.full(len(names) + 1, max(shrinkage, 1.0))
    ridge[0] = 1e-6
    lower = np.zeros(len(names) + 1)
    lower[0] = -np.inf
    fitted = fit_logistic(design_NM, labels_N, ridge, centre, lower)[1:]
    kept = {name: float(weight) for name, weight in zip(names, fitted, strict=True)}
    if min(kept.values()) >= MIN_WEIGHT:
        return kept
    strong = [name for name, weight in kept.items() if weight >= MIN_WEIGHT]
    if not strong:  # logits that tell nothing: any share will do
        return dict(zip(names, centre[1:].tolist(), strict=True))
    return fit_weights({name: logits[name] for name in strong}, labels_N, shrinkage)


def _cross_fitted_loss(
    logits: Mapping[str, FloatArray],
    labels_N: FloatArray,
    user_ids_N: AnyArray,
    shrinkage: float,
    seed: int,
) -> float:
    """Return the log loss of stacks whose weights come from other users."""
    indices_N, num_users = group_indices(user_ids_N, labels_N.size)
    num_folds = min(NUM_FOLDS, num_users)
    fold_of_user = np.random.default_rng(seed).permutation(num_users) % max(num_folds, 1)
    folds_N = fold_of_user[indices_N]
    stacked_N = np.empty(labels_N.size)
    for fold in range(num_folds):
        held_out = folds_N == fold
        others = {name: values[~held_out] for name, values in logits.items()}
        weights = fit_weights(others, labels_N[~held_out], shrinkage)
        parts = [weight * logits[name][held_out] for name, weight in weights.items()]
        stacked_N[held_out] = np.sum(parts, axis=0)
    return shifted_log_loss(stacked_N, labels_N)
