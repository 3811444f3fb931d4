"""What rows teach in training: a label and a weight each."""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np
import numpy.typing as npt


@dataclasses.dataclass(frozen=True, kw_only=True)
class Targets:
    """Labels and weights of all rows of a snapshot."""

    labels_N: npt.NDArray[np.float64]
    """(N,) 1 churned, 0 stayed, NaN unknown."""
    weights_N: npt.NDArray[np.float32]
    """(N,) weight in the loss, > 0."""

    @classmethod
    def of_labels(cls, labels_N: npt.NDArray[np.float64]) -> Targets:
        """Return the labels as they are, all of weight 1."""
        return cls(labels_N=labels_N, weights_N=np.ones(len(labels_N), dtype=np.float32))

    def digest(self) -> str:
        """Return a hash of the content."""
        return hashlib.sha256(self.labels_N.tobytes() + self.weights_N.tobytes()).hexdigest()
