"""Choosing the rows whose label would teach most: uncertain ones, and no two alike."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from trainer.errors import ConfigError

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
POOL_FACTOR = 10
"""Candidates are picked among so many times as many of the most uncertain rows."""
MIN_POOL = 200
DISAGREEMENT_SHOWN = 0.15
UNDECIDED_ENTROPY = 0.9


@dataclasses.dataclass(frozen=True, kw_only=True)
class Uncertainty:
    """How little a model knows of N rows."""

    entropy_N: FloatArray
    """(N,) bits of the mean probability, [0, 1]."""
    disagreement_N: FloatArray
    """(N,) Jensen-Shannon distance of the members, [0, 1]; 0 with one member."""

    @property
    def total_N(self) -> FloatArray:
        """(N,) entropy and disagreement together, [0, 2]."""
        return self.entropy_N + self.disagreement_N


def measure_uncertainty(members: Sequence[FloatArray]) -> Uncertainty:
    """Measure entropy and disagreement.

    Args:
        members: (N,) calibrated probabilities of each member of an ensemble; one will do.
    """
    stacked_MN = np.stack(list(members))
    entropy_N = _entropy(stacked_MN.mean(axis=0))
    divergence_N = np.maximum(entropy_N - _entropy(stacked_MN).mean(axis=0), 0.0)
    return Uncertainty(entropy_N=entropy_N, disagreement_N=np.sqrt(divergence_N))


def choose_candidates(
    uncertainty_N: FloatArray, representation_NH: FloatArray, count: int
) -> IntArray:
    """Pick uncertain rows that lie apart, the most telling first.

    Greedy: every pick is the row with the largest product of uncertainty and distance to the
    nearest row picked before, among the most uncertain rows. A row like one picked before has
    distance nought and is never picked while others are left. No chance is involved; ties fall to
    the earlier row.

    Args:
        uncertainty_N: (N,) >= 0.
        representation_NH: (N, H) where the model sees the rows.
        count: Rows to pick, 1 or more; all rows when there are fewer.

    Raises:
        ConfigError: ``count`` is below 1.
    """
    if count < 1:
        raise ConfigError(f"count is {count}; allowed: 1 or more")
    size = max(POOL_FACTOR * count, MIN_POOL)
    pool = np.sort(np.argsort(-uncertainty_N, kind="stable")[:size])
    points = _standardized(representation_NH[pool])
    weights = np.maximum(uncertainty_N[pool], 1e-12)
    nearest = np.ones(len(pool))
    is_free = np.ones(len(pool), dtype=np.bool_)
    picked: list[int] = []
    for _ in range(min(count, len(pool))):
        best = int(np.argmax(np.where(is_free, weights * nearest, -1.0)))
        distances = np.linalg.norm(points - points[best], axis=1)
        nearest = np.minimum(nearest, distances) if picked else distances
        is_free[best] = False
        picked.append(int(pool[best]))
    return np.array(picked, dtype=np.int64)


def reasons(members: dict[str, FloatArray], uncertainty: Uncertainty, rows: IntArray) -> list[str]:
    """Say in words why each of these rows was picked.

    Args:
        members: (N,) calibrated probabilities by the member's name.
        uncertainty: Of all N rows.
        rows: (K,) places of the rows.
    """
    texts = []
    for row in rows.tolist():
        shares = {name: f"{100.0 * values[row]:.0f} %" for name, values in members.items()}
        if uncertainty.disagreement_N[row] >= DISAGREEMENT_SHOWN:
            said = ", ".join(f"{name} {share}" for name, share in shares.items())
            texts.append(f"models disagree: {said}")
        elif uncertainty.entropy_N[row] >= UNDECIDED_ENTROPY:
            texts.append(f"undecided: {next(iter(shares.values()))}")
        else:
            texts.append("unlike the ones ranked before")
    return texts


def _entropy(probabilities: FloatArray) -> FloatArray:
    """Return the entropy in bits."""
    p = np.clip(probabilities, 1e-12, 1.0 - 1e-12)
    return np.asarray(-(p * np.log2(p) + (1.0 - p) * np.log2(1.0 - p)), dtype=np.float64)


def _standardized(points: FloatArray) -> FloatArray:
    """Return columns of deviation one; constant ones count for nothing."""
    spread = points.std(axis=0)
    scaled: FloatArray = (points - points.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    return scaled
