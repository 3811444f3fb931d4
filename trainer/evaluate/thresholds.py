"""Choosing the probability from which a customer is flagged, and the bounds of the risk tiers.

Chosen on validation rows; what it achieves on other rows is for the test metrics to say.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from trainer.errors import ConfigError
from trainer.evaluate.arrays import FloatArray, group_indices
from trainer.evaluate.metrics import rank_rows

#: Strategy -> what its parameter means, its default, and whether 0 and infinity are allowed.
STRATEGY_DEFAULTS: dict[str, float | None] = {
    "f_beta": 1.0,
    "precision_floor": 0.5,
    "recall_floor": 0.5,
    "capacity": 0.1,
    "top_k": None,
    "cost": None,
}
COST_NAMES = ("true_positive", "false_positive", "false_negative", "true_negative")

_MIN_SHARE = 0.01  # a precision measured on fewer rows than this share is luck


@dataclass(frozen=True, kw_only=True, slots=True)
class ThresholdChoice:
    """A flagging threshold, and what it achieves on the rows that it was chosen on."""

    threshold: float
    """Flag when probability >= threshold; above every probability when nobody is to be flagged."""
    strategy: str
    """One of `STRATEGY_DEFAULTS`."""
    parameter: float | None
    """Beta, floor, share or number of users; None for cost."""
    precision: float
    """Share of the flagged who churned, [0, 1]; 0 when nobody is flagged."""
    recall: float
    """Share of the churned who are flagged, [0, 1]; 0 when nobody churned."""
    flagged_share: float
    """Share of the rows that are flagged, [0, 1]."""
    is_satisfied: bool
    """Whether the floor or capacity could be kept."""
    reason: str
    """One plain sentence."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Options:
    """Everything that can be flagged: index 0 is nobody, the last one everybody."""

    thresholds: FloatArray
    flagged: FloatArray
    hits: FloatArray
    num_rows: float
    num_churned: float

    @property
    def precision(self) -> FloatArray:
        return self.hits / np.maximum(self.flagged, 1.0)

    @property
    def recall(self) -> FloatArray:
        return self.hits / max(self.num_churned, 1.0)


def choose_threshold(
    labels: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    strategy: str = "f_beta",
    parameter: float | None = None,
    costs: Mapping[str, float] | None = None,
    cutoffs: npt.ArrayLike | None = None,
    populations: npt.ArrayLike | None = None,
) -> ThresholdChoice:
    """Choose a flagging threshold on validation rows.

    - f_beta: the highest F-beta; parameter beta > 0 (default 1), above 1 favours recall.
    - precision_floor: the most churners at a precision of at least the parameter (default .5),
      reached by flagging at least 1 % of the rows.
    - recall_floor: the fewest flagged with a recall of at least the parameter (default .5).
    - capacity: flags at most this share of the rows (default .1).
    - top_k: flags at most this many users of any cutoff; needs a parameter. The threshold is
      fixed, so that a cutoff with more risk than those here can flag more.
    - cost: the lowest total cost; `costs` of true_positive, false_positive, false_negative and
      true_negative, per customer.

    The threshold lies halfway between neighbouring probabilities, so that rounding moves nobody.

    Args:
        labels: (N,) 0/1.
        probabilities: (N,) calibrated, in [0, 1].
        strategy: One of the names above.
        parameter: Beta, floor, share or number of users; None takes the default.
        costs: For strategy cost only.
        cutoffs: (N,) each row's cutoff, for top_k; None takes all rows as of one cutoff.
        populations: (N,) how many users the row's cutoff has in all, for top_k, where the rows are
            a part of them; None counts the rows.

    Raises:
        ConfigError: If the strategy is unknown or its settings are missing or out of range.
        ValueError: If the arrays do not fit together.
    """
    value = _check_settings(strategy, parameter, costs)
    options = _flagging_options(labels, probabilities)
    if strategy == "top_k":
        assert value is not None
        flagged_CO, sizes_C = _flagged_by_cutoff(probabilities, options, cutoffs, populations)
        index, is_satisfied, reason = _top_k(flagged_CO, sizes_C, value)
    elif strategy == "cost":
        assert costs is not None
        index, is_satisfied, reason = _cheapest(options, costs)
    else:
        assert value is not None
        index, is_satisfied, reason = _CHOOSERS[strategy](options, value)
    return ThresholdChoice(
        threshold=float(options.thresholds[index]),
        strategy=strategy,
        parameter=value,
        precision=float(options.precision[index]),
        recall=float(options.recall[index]),
        flagged_share=float(options.flagged[index] / options.num_rows),
        is_satisfied=is_satisfied,
        reason=reason,
    )


def tier_bounds(flag_threshold: float, base_rate: float) -> dict[str, Any]:
    """Return the content of a bundle's thresholds: the flag and the risk tiers.

    High is whoever is flagged; medium is at least as likely to churn as the average customer
    (or, when the flag already starts below that, at least half the flag's threshold); low is
    everybody else.

    Args:
        flag_threshold: Probability from which a customer is flagged.
        base_rate: Churn rate of the validation rows, [0, 1].

    Returns:
        {"flag_threshold": float, "tiers": [{"name", "min_probability"}]}, highest tier first.

    Raises:
        ValueError: If a number is not finite or below 0.
    """
    for name, number in (("flag_threshold", flag_threshold), ("base_rate", base_rate)):
        if not math.isfinite(number) or number < 0.0:
            raise ValueError(f"{name} must be a finite number >= 0; got {number}")
    medium = base_rate if 0.0 < base_rate < flag_threshold else 0.5 * flag_threshold
    return {
        "flag_threshold": float(flag_threshold),
        "tiers": [
            {"name": "high", "min_probability": float(flag_threshold)},
            {"name": "medium", "min_probability": float(medium)},
            {"name": "low", "min_probability": 0.0},
        ],
    }


def _check_settings(
    strategy: str, parameter: float | None, costs: Mapping[str, float] | None
) -> float | None:
    """Return the parameter to use, or refuse the combination."""
    if strategy not in STRATEGY_DEFAULTS:
        raise ConfigError(
            f"threshold strategy: got {strategy!r}; allowed: {', '.join(STRATEGY_DEFAULTS)}"
        )
    if strategy == "cost":
        if parameter is not None:
            raise ConfigError(f"threshold strategy cost takes costs; got parameter {parameter}")
        _check_costs(costs)
        return None
    if costs is not None:
        raise ConfigError(f"costs belong to threshold strategy cost; got strategy {strategy}")
    value = STRATEGY_DEFAULTS[strategy] if parameter is None else float(parameter)
    if strategy == "top_k":
        if value is None or not (value >= 1.0 and value.is_integer()):
            raise ConfigError(
                f"threshold strategy top_k: got parameter {parameter}; allowed: a whole number of "
                "users per cutoff, 1 or more"
            )
        return value
    assert value is not None
    highest = math.inf if strategy == "f_beta" else 1.0
    if not (0.0 < value <= highest and math.isfinite(value)):
        raise ConfigError(
            f"threshold strategy {strategy}: got parameter {value}; "
            f"allowed: above 0{'' if strategy == 'f_beta' else ', at most 1'}"
        )
    return value


def _check_costs(costs: Mapping[str, float] | None) -> None:
    """Require all four costs, finite."""
    given = {} if costs is None else dict(costs)
    if set(given) != set(COST_NAMES) or not all(math.isfinite(cost) for cost in given.values()):
        raise ConfigError(
            f"threshold strategy cost: got costs {given}; allowed: a finite number for each of "
            f"{', '.join(COST_NAMES)}"
        )


def _flagging_options(labels: npt.ArrayLike, probabilities: npt.ArrayLike) -> _Options:
    """List every set of rows that a threshold can flag, from nobody to everybody."""
    ranked = rank_rows(labels, probabilities)
    values = ranked.probabilities_G
    num_rows = float(ranked.labels_N.size)
    ends = np.append(ranked.starts_G[1:], ranked.labels_N.size)
    above = 0.5 * (values[0] + 1.0) if values[0] < 1.0 else np.nextafter(1.0, 2.0)
    between = 0.5 * (values[1:] + values[:-1])
    below = 0.5 * values[-1]
    # Neighbours one ulp apart have no number between them: the upper one itself then separates.
    between = np.where(between > values[1:], between, values[:-1])
    return _Options(
        thresholds=np.concatenate([[above], between, [below]]),
        flagged=np.concatenate([[0.0], ends.astype(np.float64)]),
        hits=np.concatenate([[0.0], np.cumsum(ranked.labels_N)[ends - 1]]),
        num_rows=num_rows,
        num_churned=float(ranked.labels_N.sum()),
    )


def _best_f_beta(options: _Options, beta: float) -> tuple[int, bool, str]:
    """Highest F-beta, fewest flagged on a tie."""
    squared = beta * beta
    score = (
        (1.0 + squared) * options.hits / (options.flagged + squared * options.num_churned + 1e-300)
    )
    index = int(np.argmax(score))
    return index, True, f"highest F{beta:g} on the validation rows ({score[index]:.3f})"


def _precision_floor(options: _Options, floor: float) -> tuple[int, bool, str]:
    """Most flagged at the floor; the most precise sizeable set when the floor is out of reach."""
    sizeable = options.flagged >= max(1.0, _MIN_SHARE * options.num_rows)
    allowed = sizeable & (options.precision >= floor)
    if allowed.any():
        index = int(np.flatnonzero(allowed)[-1])
        return index, True, f"most churners found at a precision of at least {floor:g}"
    index = int(np.argmax(np.where(sizeable, options.precision, -1.0)))
    return (
        index,
        False,
        (
            f"no threshold reaches a precision of {floor:g}; took the most precise one that flags "
            f"at least {_MIN_SHARE:.0%}: {options.precision[index]:.3f}"
        ),
    )


def _recall_floor(options: _Options, floor: float) -> tuple[int, bool, str]:
    """Fewest flagged at the floor."""
    if options.num_churned == 0:
        return 0, False, "nobody churned in the validation rows: nobody is flagged"
    index = int(np.argmax(options.recall >= floor))
    return index, True, f"fewest flagged at a recall of at least {floor:g}"


def _capacity(options: _Options, share: float) -> tuple[int, bool, str]:
    """Most flagged within the share; customers with equal probability stay together."""
    index = int(np.flatnonzero(options.flagged <= share * options.num_rows)[-1])
    if index == 0:
        return (
            0,
            False,
            (
                f"the customers with the highest probability are more than {share:.1%} of all and "
                "cannot be told apart: nobody is flagged"
            ),
        )
    return index, True, f"the most at risk, at most {share:.1%} of the customers"


def _flagged_by_cutoff(
    probabilities: npt.ArrayLike,
    options: _Options,
    cutoffs: npt.ArrayLike | None,
    populations: npt.ArrayLike | None,
) -> tuple[FloatArray, FloatArray]:
    """Return (C, O) users of each cutoff that each option flags, scaled up to (C,) all of them."""
    scores_N = np.asarray(probabilities, dtype=np.float64)
    cutoff_N, num_cutoffs = group_indices(
        np.zeros(scores_N.size) if cutoffs is None else cutoffs, scores_N.size
    )
    flagged, sizes = [], []
    for number in range(num_cutoffs):
        inside = cutoff_N == number
        rising = np.sort(scores_N[inside])
        count = rising.size - np.searchsorted(rising, options.thresholds, side="left")
        size = float(rising.size)
        if populations is not None:
            size = float(np.asarray(populations, dtype=np.float64)[inside][0])
        flagged.append(count * (size / rising.size))
        sizes.append(size)
    return np.array(flagged), np.array(sizes)


def _top_k(flagged_CO: FloatArray, sizes_C: FloatArray, count: float) -> tuple[int, bool, str]:
    """Most flagged with at most this many at every cutoff."""
    fits = (flagged_CO <= count + 1e-9).all(axis=0)
    index = int(np.flatnonzero(fits)[-1])
    if index == 0:
        return (
            0,
            False,
            (
                f"the customers with the highest probability are more than {count:.0f} and cannot "
                "be told apart: nobody is flagged"
            ),
        )
    share = min(count / float(sizes_C.mean()), 1.0)
    return index, True, f"the most at risk, at most {count:.0f} of a cutoff (about {share:.1%})"


def _cheapest(options: _Options, costs: Mapping[str, float]) -> tuple[int, bool, str]:
    """Lowest total cost, fewest flagged on a tie."""
    false_positives = options.flagged - options.hits
    misses = options.num_churned - options.hits
    passed = options.num_rows - options.flagged - misses
    total = (
        costs["true_positive"] * options.hits
        + costs["false_positive"] * false_positives
        + costs["false_negative"] * misses
        + costs["true_negative"] * passed
    )
    index = int(np.argmin(total))
    per_customer = float(total[index] / options.num_rows)
    return index, True, f"lowest cost on the validation rows: {per_customer:.4g} per customer"


_CHOOSERS: dict[str, Callable[[_Options, float], tuple[int, bool, str]]] = {
    "f_beta": _best_f_beta,
    "precision_floor": _precision_floor,
    "recall_floor": _recall_floor,
    "capacity": _capacity,
}
