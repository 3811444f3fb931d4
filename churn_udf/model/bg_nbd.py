"""BG/NBD members: who may have left for good, from three columns (Fader, Hardie, Lee 2005).

While alive, a customer buys as a Poisson process of rate lambda ~ Gamma(r, alpha) and leaves after
any purchase with probability p ~ Beta(a, b). Two scores come of it, and validation rows say which
one to take (``trainer.evaluate.bg_nbd``): minus the logarithm of the purchases expected in the
horizon, which ranks rare buyers well, and the log odds of buying nothing in it, which those who
buy many times in a horizon need.

What is known of a customer ends at the observation window, so frequency, recency and age are all
counted inside it, from feature columns: ``x`` active days after the first one, ``t_x`` days from
the first to the last, ``T`` days from the first to the cutoff. As Poisson purchases have no
memory, the first active day inside the window does for the first one ever; the rates that are
learned are then those of customers who lived to see the window.

Shape suffixes: N rows, F features, C columns read.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from churn_udf.errors import BundleIntegrityError, damage_named

FloatArray = npt.NDArray[np.float64]
WINDOW_DAYS = 365.0
"""Length of the window of the frequency column; no age is longer."""
EXPECTED, CHANCE = "expected_purchases", "chance_of_none"
SCORES = (EXPECTED, CHANCE)

_SINGULAR = 1e-4  # nearest that ``a`` comes to 1, where the formula is 0 / 0
_LEAST = 1e-12  # purchases, and a chance of one, below which customers are not told apart


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class BgNbdColumns:
    """Feature columns that frequency, recency and age are taken from."""

    frequency: str = "active_day_count_365d"
    """Active days in the last 365 days."""
    recency: str = "days_since_active"
    """Days from the last active day to the cutoff."""
    mean_gap: str | None = "gap_mean_days"
    """Mean days between consecutive active days; preferred source of ``t_x``."""
    tenure: str | None = "tenure_days"
    """Days since the first event of any kind; stands in where there is no mean gap column."""

    def among(self, names: Sequence[str]) -> BgNbdColumns:
        """Return the columns without those that are not there, or not needed."""
        gap = self.mean_gap if self.mean_gap in names else None
        tenure = self.tenure if gap is None and self.tenure in names else None
        return dataclasses.replace(self, mean_gap=gap, tenure=tenure)

    @property
    def used(self) -> tuple[str, ...]:
        """Names of the columns that are read."""
        span = self.mean_gap or self.tenure
        return (self.frequency, self.recency, *([span] if span else []))


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class BgNbdParameters:
    """The four numbers of the model; time is in days."""

    r: float
    alpha: float
    a: float
    b: float


def histories(
    features_NF: FloatArray, names: Sequence[str], columns: BgNbdColumns
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return x, t_x and T, each (N,), finite, with 0 <= t_x <= T and T >= 1.

    ``x`` is active days minus one; ``t_x`` the mean gap times x, which is exact where the
    observation window is at most 365 days and is cut to the last 365 days where it is longer.

    Args:
        features_NF: (N, F) float64, NaN = unknown.
        names: (F,) names of its columns.
        columns: Which of them to read.
    """
    places = [list(names).index(name) for name in columns.used]
    read_N3 = np.where(np.isfinite(features_NF[:, places]), features_NF[:, places], np.nan)
    x_N = np.maximum(np.nan_to_num(read_N3[:, 0]) - 1.0, 0.0)
    recency_N = np.clip(np.nan_to_num(read_N3[:, 1], nan=WINDOW_DAYS), 0.0, WINDOW_DAYS)
    room_N = WINDOW_DAYS - recency_N
    span_N = room_N
    if len(places) > 2:
        values_N = read_N3[:, 2]
        known_N = x_N * values_N if columns.mean_gap else values_N - recency_N
        span_N = np.where(np.isfinite(known_N), np.clip(known_N, 0.0, room_N), room_N)
    t_x_N = np.where(x_N > 0, span_N, 0.0)
    return x_N, t_x_N, np.maximum(t_x_N + recency_N, 1.0)


def alive_chances(
    parameters: BgNbdParameters, x_N: FloatArray, t_x_N: FloatArray, T_N: FloatArray
) -> FloatArray:
    """Return the chance of each customer not to have left by T; who never came back has not."""
    from scipy.special import expit

    r, alpha, a, b = dataclasses.astuple(parameters)
    odds_gone_N = (
        np.log(a)
        - np.log(np.maximum(b + x_N - 1.0, 1e-300))
        + (r + x_N) * (np.log(alpha + T_N) - np.log(alpha + t_x_N))
    )
    return np.asarray(np.where(x_N > 0, expit(-odds_gone_N), 1.0), dtype=np.float64)


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
    from scipy.special import hyp2f1

    r, alpha, a, b = dataclasses.astuple(parameters)
    if horizon == 0.0:
        return np.zeros(len(x_N))
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
    return np.asarray(alive_chances(parameters, x_N, t_x_N, T_N) * if_alive_N, dtype=np.float64)


def purchase_chances(
    parameters: BgNbdParameters,
    x_N: FloatArray,
    t_x_N: FloatArray,
    T_N: FloatArray,
    horizon: float,
    gap: float = 0.0,
) -> FloatArray:
    """Return the chance of any purchase in the ``horizon`` days that begin ``gap`` days after T.

    A customer of rate lambda who leaves with probability p is still there after the gap with
    exp(-lambda p gap) and then buys with 1 - exp(-lambda horizon); the mean of the product over
    the rates and probabilities that are likely after x purchases in T days.

    Args:
        parameters: The model.
        x_N: (N,) repeat purchases.
        t_x_N: (N,) days from the first to the last purchase.
        T_N: (N,) days from the first purchase to the cutoff.
        horizon: Days, above 0.
        gap: Days, >= 0.
    """
    from scipy.special import hyp2f1

    r, alpha, a, b = dataclasses.astuple(parameters)
    alive_N = alive_chances(parameters, x_N, t_x_N, T_N)
    shape_N, age_N = r + x_N, alpha + T_N
    none_N = shape_N * (np.log(age_N) - np.log(age_N + horizon))
    if gap == 0.0:
        return np.asarray(alive_N * -np.expm1(none_N), dtype=np.float64)

    def stays(ages_N: FloatArray) -> FloatArray:  # after Pfaff: its terms have one sign
        share_N = gap / (ages_N + gap)
        series_N = hyp2f1(a, a + b - r, a + b + x_N, share_N)
        return np.asarray(np.exp(a * np.log1p(-share_N)) * series_N, dtype=np.float64)

    chance_N = stays(age_N) - np.exp(none_N) * stays(age_N + horizon)
    return np.asarray(alive_N * np.clip(chance_N, 0.0, 1.0), dtype=np.float64)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class BgNbdModel:
    """A fitted BG/NBD score that names the columns it reads.

    Where there are no parameters, the score is minus log of a shrunken rate,
    ``(x + 1) / (T + mean T)`` times the horizon.
    """

    source: BgNbdColumns
    """Columns, without those that it does not read."""
    parameters: BgNbdParameters | None
    score: str
    """Of ``SCORES``."""
    horizon_days: float
    gap_days: float
    mean_age_days: float
    """Mean T of the customers it was fitted on."""
    typical: tuple[float, ...]
    """Medians of the columns, in the order of ``columns``; NaN where all were unknown."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns that are read."""
        return self.source.used

    def logits(self, features_NF: FloatArray, names: Sequence[str]) -> FloatArray:
        """Return (N,) float64 scores, always finite; the higher, the likelier to churn.

        Args:
            features_NF: (N, all features) float64, NaN where unknown.
            names: Names of its columns; every one of ``columns`` is among them.
        """
        counts = histories(features_NF, names, self.source)
        x_N, _, T_N = counts
        rate_N = -np.log((x_N + 1.0) / (T_N + self.mean_age_days) * self.horizon_days)
        if self.parameters is None:
            return rate_N
        with np.errstate(all="ignore"):  # what is not finite is replaced
            if self.score == CHANCE:
                chance_N = purchase_chances(
                    self.parameters, *counts, self.horizon_days, self.gap_days
                )
                chance_N = np.clip(chance_N, _LEAST, 1.0 - _LEAST)
                logits_N = np.log1p(-chance_N) - np.log(chance_N)
            else:
                until_end_N = expected_purchases(
                    self.parameters, *counts, self.gap_days + self.horizon_days
                )
                in_gap_N = expected_purchases(self.parameters, *counts, self.gap_days)
                logits_N = -np.log(np.maximum(until_end_N - in_gap_N, _LEAST))
        return np.where(np.isfinite(logits_N), logits_N, rate_N)

    def contributions(self, features_NF: FloatArray, names: Sequence[str]) -> FloatArray:
        """Return (N, all features): by how many logits each raises the risk above the typical.

        Exact Shapley values: the mean, over all orders of the columns, of what the score changes
        when a customer's own value takes the place of the typical one.
        """
        places = [list(names).index(name) for name in self.columns]
        own_NC = features_NF[:, places]
        columns = frozenset(range(len(places)))
        by_subset: dict[frozenset[int], FloatArray] = {}
        for size in range(len(columns) + 1):
            for chosen in itertools.combinations(columns, size):
                is_own_C = np.isin(np.arange(len(columns)), chosen)
                mixed_NC = np.where(is_own_C, own_NC, self.typical)
                by_subset[frozenset(chosen)] = self.logits(mixed_NC, self.columns)
        effects_NF = np.zeros(features_NF.shape)
        for subset, before_N in by_subset.items():
            for column in columns - subset:
                share = 1.0 / (len(columns) * math.comb(len(columns) - 1, len(subset)))
                change_N = by_subset[subset | {column}] - before_N
                effects_NF[:, places[column]] += share * change_N
        return effects_NF

    def to_json(self) -> str:
        """Return the text that ``from_json`` reads back to the same numbers."""
        document = dataclasses.asdict(self)
        document["typical"] = [None if math.isnan(value) else value for value in self.typical]
        return json.dumps(document, indent=2, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str, *, file: str) -> BgNbdModel:
        """Parse a BG/NBD member.

        Raises:
            BundleIntegrityError: Not such a file, or numbers that no fit gives.
        """
        with damage_named(file):
            document: Mapping[str, Any] = json.loads(text)
            found = document["parameters"]
            parameters = None
            if found is not None:
                names = [field.name for field in dataclasses.fields(BgNbdParameters)]
                parameters = BgNbdParameters(**{name: float(found[name]) for name in names})
            model = cls(
                source=BgNbdColumns(**document["source"]),
                parameters=parameters,
                score=str(document["score"]),
                horizon_days=float(document["horizon_days"]),
                gap_days=float(document["gap_days"]),
                mean_age_days=float(document["mean_age_days"]),
                typical=tuple(math.nan if v is None else float(v) for v in document["typical"]),
            )
        numbers = () if parameters is None else dataclasses.astuple(parameters)
        above = [model.horizon_days, model.mean_age_days, *numbers]
        is_sound = (
            model.score in SCORES
            and all(isinstance(name, str) for name in model.columns)
            and len(set(model.columns)) == len(model.columns) == len(model.typical)
            and not any(math.isinf(value) for value in model.typical)
            and all(math.isfinite(value) and value > 0.0 for value in above)
            and math.isfinite(model.gap_days)
            and model.gap_days >= 0.0
        )
        if not is_sound:
            raise BundleIntegrityError(
                f"{file}: allowed: a score of {', '.join(SCORES)}, columns that differ and a "
                "typical value for each, parameters and days above 0; restore the bundle or "
                "run `churn-train run`"
            )
        return model
