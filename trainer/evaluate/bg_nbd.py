"""BG/NBD: expected purchases of a customer who may have left for good (Fader, Hardie, Lee 2005).

While alive, a customer buys as a Poisson process of rate lambda ~ Gamma(r, alpha) and leaves after
any purchase with probability p ~ Beta(a, b). The score is minus the logarithm of the purchases
expected in the horizon; one minus the probability of being alive ranks churners badly.

What is known of a customer ends at the observation window, so frequency, recency and age are all
counted inside it, from feature columns: ``x`` active days after the first one, ``t_x`` days from
the first to the last, ``T`` days from the first to the cutoff. As Poisson purchases have no
memory, the first active day inside the window does for the first one ever; the rates that are
learned are then those of customers who lived to see the window.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from trainer.errors import ConfigError
from trainer.evaluate.arrays import AnyArray, FloatArray

WINDOW_DAYS = 365.0
"""Length of the window of the frequency column; no age is longer."""
MAX_FIT_CUSTOMERS = 20_000
"""Four numbers are learned: more customers change none of them noticeably."""

_BOUNDS = (-8.0, 8.0)  # of log(r, alpha / mean T, a, b): beyond them the model is a limiting case
_STARTS = ((0.0, 0.0, 0.0, 0.0), (0.0, -1.0, -2.0, 1.0), (-1.0, 0.0, -4.0, 0.0))
_RIDGE = 1e-4  # per customer, on the logs: decides where the likelihood is flat
_SINGULAR = 1e-4  # nearest that ``a`` comes to 1, where the formula is 0 / 0


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class BgNbdColumns:
    """Feature columns that frequency, recency and age are taken from."""

    frequency: str = "active_day_count_365d"
    """Active days in the last 365 days."""
    recency: str = "days_since_active"
    """Days from the last active day to the cutoff."""
    mean_gap: str = "gap_mean_days"
    """Mean days between consecutive active days; preferred source of ``t_x``."""
    tenure: str = "tenure_days"
    """Days since the first event of any kind; stands in where there is no mean gap column."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class BgNbdParameters:
    """The four numbers of the model; time is in days."""

    r: float
    alpha: float
    a: float
    b: float


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class BgNbdFit:
    """A fitted score."""

    logits_of: Callable[[FloatArray], FloatArray]
    """(N, F) features -> (N,) minus log expected purchases in the horizon, always finite."""
    parameters: BgNbdParameters | None
    """None where the fallback is used."""
    facts: dict[str, Any]
    """JSON-ready: columns, customers, parameters, whether it converged, why not."""


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


def expected_purchases(
    parameters: BgNbdParameters,
    x_N: FloatArray,
    t_x_N: FloatArray,
    T_N: FloatArray,
    horizon: float,
) -> FloatArray:
    """Return the purchases expected in the ``horizon`` days after T, equation 10 of the paper.

    Euler's transformation of the hypergeometric function takes the powers of r + x out of it, so
    that nothing overflows for customers with hundreds of purchases.

    Args:
        parameters: The model.
        x_N: (N,) repeat purchases.
        t_x_N: (N,) days from the first to the last purchase.
        T_N: (N,) days from the first purchase to the cutoff.
        horizon: Days, >= 0.
    """
    from scipy.special import expit, hyp2f1

    r, alpha, a, b = dataclasses.astuple(parameters)
    if abs(a - 1.0) < _SINGULAR:
        sides = [
            dataclasses.replace(parameters, a=1.0 + 2.0 * sign * _SINGULAR) for sign in (-1, 1)
        ]
        below, above = (expected_purchases(side, x_N, t_x_N, T_N, horizon) for side in sides)
        return 0.5 * (below + above)
    share_N = horizon / (alpha + T_N + horizon)
    series_N = hyp2f1(a - 1.0, a + b - 1.0 - r, a + b + x_N - 1.0, share_N)
    kept_N = np.exp((a - 1.0) * np.log1p(-share_N)) * series_N
    if_alive_N = (a + b + x_N - 1.0) / (a - 1.0) * (1.0 - kept_N)
    odds_gone_N = (
        np.log(a)
        - np.log(np.maximum(b + x_N - 1.0, 1e-300))
        + (r + x_N) * (np.log(alpha + T_N) - np.log(alpha + t_x_N))
    )
    alive_N = np.where(x_N > 0, expit(-odds_gone_N), 1.0)
    return np.asarray(alive_N * if_alive_N, dtype=np.float64)


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

    Where the model cannot be fitted (nobody came back, the search failed), the score is minus log
    of a shrunken rate, ``(x + 1) / (T + mean T)`` times the horizon, and ``facts`` says so.

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
    history = _History(columns or BgNbdColumns(), feature_names)
    customers = _newest_rows(user_ids_N)
    if customers.size > MAX_FIT_CUSTOMERS:
        generator = np.random.default_rng(seed)
        customers = np.sort(generator.choice(customers, MAX_FIT_CUSTOMERS, replace=False))
    x_N, t_x_N, T_N = history.of(features_NF[customers])
    mean_T = float(T_N.mean())
    facts: dict[str, Any] = {
        "columns": history.used,
        "num_customers": int(customers.size),
        "horizon_days": float(horizon_days),
    }

    def rate_logits(features: FloatArray) -> FloatArray:
        x, _, T = history.of(features)
        return -np.log((x + 1.0) / (T + mean_T) * horizon_days)

    try:
        parameters = fit_parameters(x_N, t_x_N, T_N)
    except ValueError as error:
        facts |= {"converged": False, "fallback": f"shrunken purchase rate: {error}"}
        return BgNbdFit(logits_of=rate_logits, parameters=None, facts=facts)

    def logits_of(features: FloatArray) -> FloatArray:
        counts = history.of(features)
        until_end = expected_purchases(parameters, *counts, gap_days + horizon_days)
        expected = until_end - expected_purchases(parameters, *counts, gap_days)
        logits = -np.log(np.maximum(expected, 1e-12))
        return np.where(np.isfinite(logits), logits, rate_logits(features))

    facts |= {"converged": True, **dataclasses.asdict(parameters)}
    return BgNbdFit(logits_of=logits_of, parameters=parameters, facts=facts)


class _History:
    """Frequency, recency and age of rows, from the columns that there are.

    ``x`` is active days minus one; ``t_x`` the mean gap times x, which is exact where the
    observation window is at most 365 days and is cut to the last 365 days where it is longer.
    """

    def __init__(self, columns: BgNbdColumns, feature_names: Sequence[str]) -> None:
        names = list(feature_names)
        missing = [name for name in (columns.frequency, columns.recency) if name not in names]
        if missing:
            raise ConfigError(
                f"BG/NBD columns {missing} are not among the {len(names)} features "
                f"({', '.join(names)}): name them in BgNbdColumns"
            )
        self._frequency, self._recency = map(names.index, (columns.frequency, columns.recency))
        spans = [name for name in (columns.mean_gap, columns.tenure) if name in names]
        self._span = names.index(spans[0]) if spans else None
        self._is_gap = bool(spans) and spans[0] == columns.mean_gap
        self.used = [columns.frequency, columns.recency, *spans[:1]]

    def of(self, features_NF: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return x, t_x and T, each (N,), finite, with 0 <= t_x <= T and T >= 1."""
        features_NF = np.where(np.isfinite(features_NF), features_NF, np.nan)
        x_N = np.maximum(np.nan_to_num(features_NF[:, self._frequency]) - 1.0, 0.0)
        recency = features_NF[:, self._recency]
        recency_N = np.where(np.isfinite(recency), np.clip(recency, 0.0, WINDOW_DAYS), WINDOW_DAYS)
        room_N = WINDOW_DAYS - recency_N
        span_N = room_N
        if self._span is not None:
            values = features_NF[:, self._span]
            known = x_N * values if self._is_gap else values - recency_N
            span_N = np.where(np.isfinite(known), np.clip(known, 0.0, room_N), room_N)
        t_x_N = np.where(x_N > 0, span_N, 0.0)
        return x_N, t_x_N, np.maximum(t_x_N + recency_N, 1.0)


def _newest_rows(user_ids_N: AnyArray) -> AnyArray:
    """Return the last row of each user, in row order."""
    _, first_of_reversed = np.unique(user_ids_N[::-1], return_index=True)
    return np.sort(len(user_ids_N) - 1 - first_of_reversed)
