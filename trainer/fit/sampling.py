"""Drawing the training rows of a pass, with the share of the churned left alone or set.

Over-sampling repeats the class that is short, under-sampling leaves out rows of the other; both
change the base rate that the model learns, which ``trainer.fit.objective.logit_offset`` undoes.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from trainer.fit.config import NONE, OVER

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


def draw_rows(rows: IntArray, count: int, generator: np.random.Generator) -> IntArray:
    """Return at most ``count`` different rows in random order."""
    return generator.permutation(rows)[:count]


class RowSampler:
    """Draws training rows; the same generator state gives the same rows.

    Args:
        rows: (N,) row indices of the training split, both classes among them.
        labels: (N,) their labels, 0 or 1.
        sampling: ``none``, ``over`` or ``under``.
        churned_share: Share of churned rows in what ``over`` and ``under`` draw, in (0, 1).
    """

    def __init__(
        self, rows: IntArray, labels: FloatArray, sampling: str, churned_share: float
    ) -> None:
        self._rows = rows
        self._classes = rows[labels <= 0.5], rows[labels > 0.5]
        self._sampling = sampling
        self.base_rate = len(self._classes[1]) / max(1, len(rows))
        """Share of churned rows before sampling."""
        self.drawn_share = self.base_rate if sampling == NONE else churned_share
        """Share of churned rows in a pass."""

    @property
    def size(self) -> int:
        """Rows of a pass that is not limited."""
        if self._sampling == NONE:
            return len(self._rows)
        stayed, churned = (len(rows) for rows in self._classes)
        wanted = stayed / (1.0 - self.drawn_share), churned / self.drawn_share
        return max(2, round(max(wanted) if self._sampling == OVER else min(wanted)))

    def draw(self, count: int, generator: np.random.Generator) -> IntArray:
        """Return at most ``count`` rows in random order; only ``over`` repeats rows."""
        if self._sampling == NONE:
            return draw_rows(self._rows, count, generator)
        size = min(count, self.size)
        num_churned = min(max(1, round(size * self.drawn_share)), size - 1)
        drawn = [
            _draw_of_class(rows, number, generator)
            for rows, number in zip(self._classes, (size - num_churned, num_churned), strict=True)
        ]
        return generator.permutation(np.concatenate(drawn))


def _draw_of_class(rows: IntArray, count: int, generator: np.random.Generator) -> IntArray:
    """Return ``count`` rows, each as often as the next one, give or take one."""
    turns = [generator.permutation(rows) for _ in range(-(-count // len(rows)))]
    return np.concatenate(turns)[:count]


def recency_weights(
    cutoff_dates: npt.NDArray[np.datetime64], half_life_days: float | None
) -> FloatArray:
    """Return how much each row weighs in the loss: 1 at the newest cutoff, halved with age.

    Args:
        cutoff_dates: (N,) datetime64[D] cutoffs of the training rows, N >= 1.
        half_life_days: Days of age that halve the weight; None: all weigh 1.
    """
    if half_life_days is None:
        return np.ones(len(cutoff_dates))
    ages = (cutoff_dates.max() - cutoff_dates) / np.timedelta64(1, "D")
    return np.asarray(0.5 ** (ages / half_life_days), dtype=np.float64)
