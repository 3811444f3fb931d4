"""Fitting BG/NBD (Fader, Hardie, Lee 2005); ``churn_udf.model.bg_nbd`` applies it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from churn_udf.model.bg_nbd import (
    EXPECTED,
    BgNbdColumns,
    BgNbdModel,
    BgNbdParameters,
    histories,
)
from trainer.errors import ConfigError
from trainer.evaluate.arrays import AnyArray, FloatArray

MAX_FIT_CUSTOMERS = 20_000
"""Four numbers are learned: more customers change none of them noticeably."""

_BOUNDS = (-8.0, 8.0)  # of log(r, alpha / mean T, a, b): beyond them the model is a limiting case
_STARTS = ((0.0, 0.0, 0.0, 0.0), (0.0, -1.0, -2.0, 1.0), (-1.0, 0.0, -4.0, 0.0))
_RIDGE = 1e-4  # per customer, on the logs: decides where the likelihood is flat


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class BgNbdFit:
    """A fitted score."""

    model: BgNbdModel
    """What scores; without parameters where they could not be found."""
    feature_names: tuple[str, ...]
    """(F,) names of the columns of its features."""
    facts: dict[str, Any]
    """JSON-ready: columns, customers, parameters, whether it converged, why not."""

    def logits_of(self, features_NF: FloatArray) -> FloatArray:
        """Return (N,) scores of (N, F) features, always finite."""
        return self.model.logits(features_NF, self.feature_names)

    def by(self, score: str) -> BgNbdFit:
        """Return the same fit with another of ``churn_udf.model.bg_nbd.SCORES``."""
        return dataclasses.replace(self, model=dataclasses.replace(self.model, score=score))


def log_likelihood(
    parameters: BgNbdParameters, x_N: FloatArray, t_x_N: FloatArray, T_N: FloatArray
) -> FloatArray:
    """Return the log-likelihood of each customer, equation 6 of the paper, in logs throughout.

    Args:
        parameters: The model.
        x_N: (N,) repeat purchases, >= 0.
        t_x_N: (N,) days from the first to the last purchase, 0 where x is 0.
        T_N: (N,) days from the first purchase to the cutoff, >= t_x.
    """
    from scipy.special import betaln, gammaln

    r, alpha, a, b = dataclasses.astuple(parameters)
    common_N = gammaln(r + x_N) - gammaln(r) + r * np.log(alpha) - betaln(a, b)
    alive_N = betaln(a, b + x_N) - (r + x_N) * np.log(alpha + T_N)
    later_N = np.maximum(x_N, 1.0)  # nobody leaves before a repeat purchase
    gone_N = betaln(a + 1.0, b + later_N - 1.0) - (r + x_N) * np.log(alpha + t_x_N)
    result = common_N + np.where(x_N > 0, np.logaddexp(alive_N, gone_N), alive_N)
    return np.asarray(result, dtype=np.float64)


def fit_parameters(x_N: FloatArray, t_x_N: FloatArray, T_N: FloatArray) -> BgNbdParameters:
    """Return the parameters of greatest likelihood.

    Args:
        x_N: (N,) repeat purchases.
        t_x_N: (N,) days from the first to the last purchase.
        T_N: (N,) days from the first purchase to the cutoff.

    Raises:
        ValueError: The data cannot tell the parameters, or the search failed; says why.
    """
    from scipy.optimize import minimize

    if not x_N.any():
        raise ValueError("no customer has a repeat purchase")
    mean_T = max(float(T_N.mean()), 1.0)
    rows = np.column_stack([x_N, t_x_N / mean_T, T_N / mean_T])
    kinds_K3, counts_K = np.unique(rows, axis=0, return_counts=True)
    x_K, t_x_K, T_K = kinds_K3.T

    def loss(logs: FloatArray) -> float:
        values = np.exp(logs)
        model = BgNbdParameters(r=values[0], alpha=values[1], a=values[2], b=values[3])
        total = float(counts_K @ log_likelihood(model, x_K, t_x_K, T_K))
        return -total / len(x_N) + _RIDGE * float(logs @ logs)

    with np.errstate(all="ignore"):
        searches = [
            minimize(loss, np.array(start), method="L-BFGS-B", bounds=[_BOUNDS] * 4)
            for start in _STARTS
        ]
    found = [search for search in searches if search.success and np.isfinite(search.fun)]
    if not found:
        raise ValueError(f"the search failed: {searches[0].message}")
    r, alpha, a, b = (float(value) for value in np.exp(min(found, key=lambda one: one.fun).x))
    return BgNbdParameters(r=r, alpha=alpha * mean_T, a=a, b=b)


def fit_bg_nbd(
    features_NF: FloatArray,
    user_ids_N: AnyArray,
    feature_names: Sequence[str],
    *,
    horizon_days: float,
    gap_days: float = 0.0,
    columns: BgNbdColumns | None = None,
    seed: int = 0,
) -> BgNbdFit:
    """Fit on the newest row of each user; labels are not needed.

    Where the model cannot be fitted (nobody came back, the search failed), the score is that of a
    shrunken rate, and ``facts`` says so.

    Args:
        features_NF: (N, F) float64 training rows, ordered by cutoff, NaN = unknown.
        user_ids_N: (N,) user ids.
        feature_names: (F,) names of the columns.
        horizon_days: Days of the horizon.
        gap_days: Days between cutoff and horizon.
        columns: Where to find frequency, recency and age.
        seed: Of the choice of customers where there are very many.

    Raises:
        ConfigError: The frequency or the recency column is missing, or the horizon is not above 0.
    """
    if not horizon_days > 0 or gap_days < 0:
        raise ConfigError(
            f"BG/NBD: horizon_days is {horizon_days}, gap_days is {gap_days}; "
            "allowed: above 0, and 0 or more"
        )
    columns = columns or BgNbdColumns()
    names = tuple(feature_names)
    missing = [name for name in (columns.frequency, columns.recency) if name not in names]
    if missing:
        raise ConfigError(
            f"BG/NBD reads {', '.join(missing)}, not among the {len(names)} features "
            f"({', '.join(names)}): leave bg_nbd out of evaluate.baselines and ensemble.members"
        )
    columns = columns.among(names)
    customers = _newest_rows(user_ids_N)
    if customers.size > MAX_FIT_CUSTOMERS:
        generator = np.random.default_rng(seed)
        customers = np.sort(generator.choice(customers, MAX_FIT_CUSTOMERS, replace=False))
    known_NF = features_NF[customers]
    x_N, t_x_N, T_N = histories(known_NF, names, columns)
    facts: dict[str, Any] = {
        "columns": list(columns.used),
        "num_customers": int(customers.size),
        "horizon_days": float(horizon_days),
    }
    parameters = None
    try:
        parameters = fit_parameters(x_N, t_x_N, T_N)
        facts |= {"converged": True, **dataclasses.asdict(parameters)}
    except ValueError as error:
        facts |= {"converged": False, "fallback": f"shrunken purchase rate: {error}"}
    model = BgNbdModel(
        source=columns,
        parameters=parameters,
        score=EXPECTED,
        horizon_days=float(horizon_days),
        gap_days=float(gap_days),
        mean_age_days=float(T_N.mean()),
        typical=tuple(_median(known_NF[:, names.index(name)]) for name in columns.used),
    )
    return BgNbdFit(model=model, feature_names=names, facts=facts)


def _median(values_N: FloatArray) -> float:
    """Return the median of what is known, NaN where nothing is."""
    known = values_N[np.isfinite(values_N)]
    return float(np.median(known)) if known.size else float("nan")


def _newest_rows(user_ids_N: AnyArray) -> AnyArray:
    """Return the last row of each user, in row order."""
    _, first_of_reversed = np.unique(user_ids_N[::-1], return_index=True)
    return np.sort(len(user_ids_N) - 1 - first_of_reversed)
