r"""Exact effects of features in small trees by table: TreeSHAP without walking every path per row.

What a leaf gives a feature (path-dependent TreeSHAP, Lundberg et al. 2020) depends only on which
of the splits above it a row passes. So the nodes of a tree, a few at a time, are a code of bits,
and the effects of all codes are worked out once. For a leaf of value v under the features P

    effect_f = v (h_f - r_f) * integral over t in [0, 1] of prod_{g in P \\ f} (h_g t + r_g (1 - t))

where h_g tells whether the row passes all splits on g towards the leaf and r_g is the share of
training rows that did. The integral of that polynomial is a sum over Gauss-Legendre nodes.

Shape suffixes: B rows, F features, K codes, D features above a leaf, Q nodes of the quadrature.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
MOST_SPLITS = 10
"""Splits that make one code; its table has 2 ** splits entries for each feature."""
ZERO = 1e-35
"""LightGBM takes smaller values for zero."""


class UnsupportedTreeError(Exception):
    """A tree of a kind that has no table: categories, or a leaf under too many splits."""


@dataclasses.dataclass(frozen=True)
class _Split:
    """A node: where a row goes, and how many training rows went each way."""

    feature: int
    threshold: float
    missing: str
    is_missing_left: bool
    left_share: float

    def passes(self, known_FB: FloatArray, is_unknown_FB: npt.NDArray[np.bool_]) -> Any:
        """Return (B,) whether rows go left; ``known_FB`` has 0 where unknown."""
        values, is_unknown = known_FB[self.feature], is_unknown_FB[self.feature]
        is_left = values <= self.threshold
        if self.missing == "None":
            return is_left
        if self.missing == "Zero":
            is_unknown = np.abs(values) <= ZERO
        return is_left | is_unknown if self.is_missing_left else is_left & ~is_unknown


@dataclasses.dataclass(frozen=True)
class _Table:
    """Effects of leaves that share a few splits, by code."""

    splits: Sequence[_Split]
    effects: Mapping[int, FloatArray]
    """Feature -> (K,) effect of each code."""


class TreeEffects:
    """Tables of all trees of a model.

    Args:
        model: ``Booster.dump_model()``.

    Raises:
        UnsupportedTreeError: A tree cannot be tabulated.
    """

    def __init__(self, model: Mapping[str, Any]) -> None:
        trees = (tree["tree_structure"] for tree in model["tree_info"])
        self._tables = [table for tree in trees for table in _tables(tree, [])]

    def contributions(self, features_BF: FloatArray) -> FloatArray:
        """Return (B, F): by how many logits each feature raises the risk."""
        is_unknown_FB = ~np.isfinite(features_BF.T)
        known_FB = np.ascontiguousarray(np.where(is_unknown_FB, 0.0, features_BF.T))
        effects_FB = np.zeros(known_FB.shape)
        for table in self._tables:
            codes_B = np.zeros(len(features_BF), dtype=np.intp)
            for bit, split in enumerate(table.splits):
                codes_B |= split.passes(known_FB, is_unknown_FB).astype(np.intp) << bit
            for feature, effects_K in table.effects.items():
                effects_FB[feature] += effects_K[codes_B]
        return np.ascontiguousarray(effects_FB.T)


def _tables(node: Mapping[str, Any], above: list[tuple[_Split, bool]]) -> Iterator[_Table]:
    """Tabulate the leaves under a node, all at once if there are few splits."""
    if "split_feature" in node and len(above) + _num_splits(node) > MOST_SPLITS:
        split = _split_of(node)
        yield from _tables(node["left_child"], [*above, (split, True)])
        yield from _tables(node["right_child"], [*above, (split, False)])
        return
    if len(above) > MOST_SPLITS:
        raise UnsupportedTreeError(f"a leaf under {len(above)} splits; allowed: {MOST_SPLITS}")
    leaves = list(_leaves(node, above))
    splits = list({id(split): split for _, path in leaves for split, _ in path}.values())
    if not splits:
        return  # a tree of one leaf moves the constant alone
    bits = {id(split): bit for bit, split in enumerate(splits)}
    codes_K = np.arange(2 ** len(splits))
    is_left_K = {key: (codes_K >> bit & 1).astype(np.bool_) for key, bit in bits.items()}
    effects: dict[int, FloatArray] = {}
    for value, path in leaves:
        for feature, effects_K in _leaf_effects(value, path, is_left_K, len(codes_K)):
            effects[feature] = effects.get(feature, np.zeros(len(codes_K))) + effects_K
    yield _Table(splits, effects)


def _leaf_effects(
    value: float,
    path: Sequence[tuple[_Split, bool]],
    is_left_K: Mapping[int, npt.NDArray[np.bool_]],
    num_codes: int,
) -> Iterator[tuple[int, FloatArray]]:
    """Yield features above a leaf and their effects (K,) by code; see the formula above."""
    places = {feature: place for place, feature in enumerate({s.feature: 0 for s, _ in path})}
    passed_DK = np.ones((len(places), num_codes, 1))
    shares_D11 = np.ones((len(places), 1, 1))
    for split, is_left in path:
        place = places[split.feature]
        passed_DK[place, :, 0] *= is_left_K[id(split)] == is_left
        shares_D11[place] *= split.left_share if is_left else 1.0 - split.left_share
    times_Q, weights_Q = _quadrature(math.ceil(len(places) / 2))
    factors_DKQ = passed_DK * times_Q + shares_D11 * (1.0 - times_Q)
    others_DKQ = np.prod(factors_DKQ, axis=0) / factors_DKQ
    integrals_DK = others_DKQ @ weights_Q
    effects_DK = value * (passed_DK - shares_D11)[:, :, 0] * integrals_DK
    yield from zip(places, effects_DK, strict=True)


@functools.cache
def _quadrature(num_points: int) -> tuple[FloatArray, FloatArray]:
    """Return the points in [0, 1] and weights of Gauss and Legendre's rule."""
    nodes, weights = np.polynomial.legendre.leggauss(num_points)
    return (nodes + 1.0) / 2.0, weights / 2.0


def _leaves(
    node: Mapping[str, Any], above: Sequence[tuple[_Split, bool]]
) -> Iterator[tuple[float, Sequence[tuple[_Split, bool]]]]:
    """Yield the value of each leaf and the path to it: splits, and whether it lies left."""
    if "split_feature" not in node:
        yield float(node["leaf_value"]), above
        return
    split = _split_of(node)
    yield from _leaves(node["left_child"], [*above, (split, True)])
    yield from _leaves(node["right_child"], [*above, (split, False)])


def _num_splits(node: Mapping[str, Any]) -> int:
    """Return how many splits a subtree has."""
    if "split_feature" not in node:
        return 0
    return 1 + _num_splits(node["left_child"]) + _num_splits(node["right_child"])


def _split_of(node: Mapping[str, Any]) -> _Split:
    """Read a node.

    Raises:
        UnsupportedTreeError: It splits on categories, or a side saw no training row.
    """
    left_share = _num_rows(node["left_child"]) / _num_rows(node)
    if node["decision_type"] != "<=" or not 0.0 < left_share < 1.0:
        raise UnsupportedTreeError(f"a split {node['decision_type']!r}, share {left_share}")
    return _Split(
        feature=int(node["split_feature"]),
        threshold=float(node["threshold"]),
        missing=str(node["missing_type"]),
        is_missing_left=bool(node["default_left"]),
        left_share=left_share,
    )


def _num_rows(node: Mapping[str, Any]) -> int:
    """Return how many training rows reached a node."""
    return int(node["internal_count"] if "split_feature" in node else node["leaf_count"])
