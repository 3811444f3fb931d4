"""Choosing a flag threshold per group, so that no group is overlooked.

With one threshold for everybody, a group whose risk is harder to see, or lower, has a smaller
share of its churners flagged. A threshold per group evens that out. Chosen on validation rows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from trainer.errors import ConfigError
from trainer.evaluate.arrays import FloatArray, as_labels, as_probabilities
from trainer.evaluate.slices import MIN_CLASS_ROWS
from trainer.evaluate.thresholds import ThresholdChoice, choose_threshold

BoolArray: TypeAlias = npt.NDArray[np.bool_]
EQUAL_RECALL, SAME_STRATEGY = "equal_recall", "same_strategy"
GROUP_RULES = (EQUAL_RECALL, SAME_STRATEGY)
_MAX_STEPS = 40
_LEAST_RECALL = 1e-9


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class GroupChoice:
    """Flag thresholds of all groups, and what they achieve on the rows they were chosen on."""

    rule: str
    """One of ``GROUP_RULES``."""
    thresholds: tuple[float, ...]
    """(G,) in [0, 1]; the threshold for everybody where a group is too small for its own."""
    groups: list[dict[str, Any]]
    """Per group, JSON-ready: name, rows, threshold, recall, flagged_share, is_own."""
    flagged_share: float
    """Share of all rows that are flagged, [0, 1]."""


def choose_group_thresholds(
    labels: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    groups: npt.ArrayLike,
    names: Sequence[str],
    choice: ThresholdChoice,
    rule: str = EQUAL_RECALL,
    costs: Mapping[str, float] | None = None,
) -> GroupChoice:
    """Choose a threshold per group, starting from the one for everybody.

    - equal_recall (equal opportunity): every group has the share of its churners flagged that
      everybody has at the threshold for everybody. Where that strategy is a capacity, the common
      recall is lowered until no more rows are flagged than before.
    - same_strategy: the strategy of ``choice`` in every group by itself. For a capacity that flags
      the same share of each group.

    A group with fewer than 20 churners or stayers keeps the threshold for everybody.

    Args:
        labels: (N,) 0/1, validation rows.
        probabilities: (N,) calibrated, in [0, 1].
        groups: (N,) number of each row's group, 0 .. G - 1.
        names: (G,) of the groups.
        choice: The threshold for everybody, chosen on the same rows.
        rule: One of ``GROUP_RULES``.
        costs: As given to ``choose_threshold`` for strategy cost.

    Raises:
        ConfigError: The rule is unknown, or same_strategy with a capacity in users (which a group
            has no share of).
        ValueError: If the arrays do not fit together.
    """
    if rule not in GROUP_RULES:
        raise ConfigError(f"threshold group rule: got {rule!r}; allowed: {', '.join(GROUP_RULES)}")
    if rule == SAME_STRATEGY and choice.strategy == "top_k":
        raise ConfigError(
            "thresholds.group_rule same_strategy cannot divide top_k, a number of users, among "
            f"groups; allowed: {EQUAL_RECALL}, or strategy capacity (a share)"
        )
    labels_N = as_labels(labels)
    probabilities_N = as_probabilities(probabilities, labels_N.size)
    groups_N = np.asarray(groups)
    if groups_N.shape != labels_N.shape:
        raise ValueError(f"groups must have shape {labels_N.shape}; got {groups_N.shape}")
    parts = [groups_N == number for number in range(len(names))]
    has_own = [_has_enough(labels_N[part]) for part in parts]
    common = min(choice.threshold, 1.0)

    def at_recall(recall: float) -> FloatArray:
        """(G,) thresholds that reach this recall in each group."""
        return np.array(
            [
                _choose(labels_N[part], probabilities_N[part], "recall_floor", recall)
                if own
                else common
                for part, own in zip(parts, has_own, strict=True)
            ]
        )

    def flag(thresholds_G: FloatArray) -> BoolArray:
        flags: BoolArray = probabilities_N >= thresholds_G[groups_N]
        return flags

    if rule == SAME_STRATEGY:
        thresholds_G = np.array(
            [
                _choose(
                    labels_N[part], probabilities_N[part], choice.strategy, choice.parameter, costs
                )
                if own
                else common
                for part, own in zip(parts, has_own, strict=True)
            ]
        )
    elif not choice.recall:
        thresholds_G = np.full(len(names), common)
    else:
        thresholds_G = at_recall(choice.recall)
        most = int((probabilities_N >= common).sum())
        if choice.strategy in ("capacity", "top_k") and flag(thresholds_G).sum() > most:
            thresholds_G = _within(most, at_recall, flag, choice.recall, common, has_own)
    flags_N = flag(thresholds_G)
    return GroupChoice(
        rule=rule,
        thresholds=tuple(float(threshold) for threshold in thresholds_G),
        groups=[
            _facts(name, labels_N[part], flags_N[part], float(threshold), own)
            for name, part, threshold, own in zip(names, parts, thresholds_G, has_own, strict=True)
        ],
        flagged_share=float(flags_N.mean()),
    )


def _within(
    most: int,
    at_recall: Callable[[float], FloatArray],
    flag: Callable[[FloatArray], BoolArray],
    recall: float,
    common: float,
    has_own: Sequence[bool],
) -> FloatArray:
    """Lower the common recall until at most this many rows are flagged, by halving."""
    low, high = 0.0, recall
    best: FloatArray = np.where(has_own, 1.0, common)
    for _ in range(_MAX_STEPS):
        middle = 0.5 * (low + high)
        tried = at_recall(max(middle, _LEAST_RECALL))
        if flag(tried).sum() <= most:
            low, best = middle, tried
        else:
            high = middle
    return best


def _choose(
    labels: FloatArray,
    probabilities: FloatArray,
    strategy: str,
    parameter: float | None,
    costs: Mapping[str, float] | None = None,
) -> float:
    """Return one group's threshold, at most 1."""
    return min(choose_threshold(labels, probabilities, strategy, parameter, costs).threshold, 1.0)


def _has_enough(labels: FloatArray) -> bool:
    """Return whether a group has churners and stayers enough for a threshold of its own."""
    churned = float(labels.sum())
    return min(churned, labels.size - churned) >= MIN_CLASS_ROWS


def _facts(
    name: str,
    labels: FloatArray,
    flags: BoolArray,
    threshold: float,
    is_own: bool,
) -> dict[str, Any]:
    """Say what a group's threshold does to the group."""
    churned = float(labels.sum())
    return {
        "group": name,
        "rows": int(labels.size),
        "threshold": threshold,
        "recall": float((flags * labels).sum() / churned) if churned else None,
        "flagged_share": float(flags.mean()) if flags.size else None,
        "is_own": is_own,
    }
