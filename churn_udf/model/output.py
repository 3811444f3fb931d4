"""What a model says of rows."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class ModelOutput:
    """Logits and effects of B rows.

    Attributes:
        logits: (B,) float64 churn logits.
        group_effects: (B, G) float64, by how many logits each group raises the risk.
    """

    logits: FloatArray
    group_effects: FloatArray
