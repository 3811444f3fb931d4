"""Applying a calibrator: logits in, calibrated probabilities out.

Fitting lives in ``trainer.evaluate.calibration``; formulas: temperature scaling (Guo et al.
2017), Platt (1999), beta calibration (Kull et al. 2017), isotonic regression (Zadrozny and
Elkan 2002) read as a piecewise-linear curve over its knots.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from churn_udf.errors import BundleIntegrityError

PARAMETERS = {
    "identity": (),
    "temperature": ("temperature",),
    "platt": ("a", "b"),
    "beta": ("a", "b", "c"),
    "isotonic": ("x", "y"),
}
PROBABILITY_FLOOR = 1e-6
FloatArray = npt.NDArray[np.float64]


def sigmoid(logits: npt.ArrayLike) -> FloatArray:
    """Return ``1 / (1 + exp(-x))`` without overflow, float64."""
    values = np.asarray(logits, dtype=np.float64)
    decayed = np.exp(-np.abs(values))
    return np.asarray(np.where(values >= 0, 1.0, decayed) / (1.0 + decayed), dtype=np.float64)


def _softplus(values: FloatArray) -> FloatArray:
    """Return ``log(1 + exp(x))`` without overflow."""
    return np.asarray(np.logaddexp(0.0, values), dtype=np.float64)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Calibrator:
    """A fitted monotone map from logit to probability.

    Attributes:
        kind: identity, temperature, platt, beta or isotonic.
        params: Lists of numbers by name; which names is ``PARAMETERS[kind]``.
        offset: Added to the log odds of what the map says: by how much the base rate at the
            scoring cutoff is expected to differ from that of the rows it was fitted on.
    """

    kind: str
    params: Mapping[str, Sequence[float]] = dataclasses.field(default_factory=dict)
    offset: float = 0.0

    def __post_init__(self) -> None:
        """Check kind and parameters.

        Raises:
            BundleIntegrityError: Unknown kind, wrong or non-finite parameters.
        """
        if self.kind not in PARAMETERS:
            raise BundleIntegrityError(
                f"calibrator kind {self.kind!r}; allowed: {sorted(PARAMETERS)}"
            )
        if set(self.params) != set(PARAMETERS[self.kind]):
            raise BundleIntegrityError(
                f"calibrator {self.kind} has parameters {sorted(self.params)}; "
                f"allowed: {sorted(PARAMETERS[self.kind])}"
            )
        for name, values in self.params.items():
            if not len(values) or not np.all(np.isfinite(np.asarray(values, dtype=np.float64))):
                raise BundleIntegrityError(
                    f"calibrator {self.kind} parameter {name!r} must be finite numbers"
                )
        if not np.isfinite(self.offset):
            raise BundleIntegrityError(f"calibrator offset {self.offset}; allowed: a finite number")

    def apply(self, logits: npt.ArrayLike) -> FloatArray:
        """Return calibrated probabilities.

        Args:
            logits: (N,) raw model outputs, real numbers.

        Returns:
            (N,) float64 in [1e-6, 1 - 1e-6].
        """
        values = np.asarray(logits, dtype=np.float64)
        if self.kind == "identity":
            probabilities = sigmoid(values)
        elif self.kind == "temperature":
            probabilities = sigmoid(values / self.params["temperature"][0])
        elif self.kind == "platt":
            probabilities = sigmoid(self.params["a"][0] * values + self.params["b"][0])
        elif self.kind == "beta":
            positive, negative = -_softplus(-values), _softplus(values)
            probabilities = sigmoid(
                self.params["a"][0] * positive
                + self.params["b"][0] * negative
                + self.params["c"][0]
            )
        else:
            probabilities = np.interp(values, self.params["x"], self.params["y"])
        if self.offset:
            bounded = np.clip(probabilities, PROBABILITY_FLOOR, 1.0 - PROBABILITY_FLOOR)
            probabilities = sigmoid(np.log(bounded) - np.log1p(-bounded) + self.offset)
        return np.clip(probabilities, PROBABILITY_FLOOR, 1.0 - PROBABILITY_FLOOR)

    def to_json(self) -> str:
        """Return the text of ``calibration.json``."""
        params = {name: list(map(float, values)) for name, values in self.params.items()}
        document = {"kind": self.kind, "params": params, "offset": float(self.offset)}
        return json.dumps(document, indent=2, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Calibrator:
        """Parse ``calibration.json``.

        Raises:
            BundleIntegrityError: Not a calibrator.
        """
        try:
            document = json.loads(text)
            offset = float(document.get("offset", 0.0))
            return cls(kind=document["kind"], params=document["params"], offset=offset)
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            raise BundleIntegrityError(f"calibration.json is damaged: {error}") from error
