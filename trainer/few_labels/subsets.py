"""Drawing few labelled training rows: nested, spread over users."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from trainer.data.snapshot import IndexArray, Snapshot

PLAIN = "plain"
STRATIFIED = "stratified"
DRAWS = (PLAIN, STRATIFIED)


def label_order(snapshot: Snapshot, rows: IndexArray, *, draw: str, seed: int) -> IndexArray:
    """Return labelled rows in the order in which they become known.

    The beginnings of this order are the nested subsets of a learning curve. Users come in random
    order, one random row each; second rows follow when every user had a first: labels that are
    bought one by one are not bought for one user at thirty cutoffs.

    Args:
        snapshot: The rows.
        rows: (K,) labelled row indices.
        draw: ``plain``, or ``stratified``: every beginning churns as often as all rows do.
        seed: Of the order.
    """
    generator = np.random.default_rng([seed, 20])
    _, users = np.unique(np.asarray(snapshot.user_ids(rows)), return_inverse=True)
    rounds = _rank_within(users, generator.random(len(rows)))
    user_places = generator.permutation(int(users.max()) + 1 if len(users) else 0)
    order = np.lexsort((user_places[users], rounds))
    if draw == STRATIFIED:
        churned = snapshot.labels[rows[order]] > 0.5
        places = np.empty(len(rows))
        for is_class in (churned, ~churned):
            places[is_class] = (np.arange(is_class.sum()) + 0.5) / max(1, is_class.sum())
        order = order[np.argsort(places, kind="stable")]
    ordered: IndexArray = rows[order]
    return ordered


def _rank_within(groups: IndexArray, values: npt.NDArray[np.float64]) -> IndexArray:
    """Return (K,) the rank of each value among those of its group, 0 first."""
    order = np.lexsort((values, groups))
    starts = np.r_[True, np.diff(groups[order]) > 0] if len(groups) else np.zeros(0, dtype=bool)
    begins = np.maximum.accumulate(np.where(starts, np.arange(len(groups)), 0))
    ranks = np.empty(len(groups), dtype=np.int64)
    ranks[order] = np.arange(len(groups)) - begins
    return ranks
