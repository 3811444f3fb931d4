"""Linear members of an ensemble: logistic regression on transformed feature columns.

Fitting lives in ``trainer.evaluate``; what is applied travels as JSON.

Shape suffixes: B rows, F columns read, D inputs (a one, the columns, flags of the unknown).
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from churn_udf.errors import BundleIntegrityError, damage_named

FloatArray = npt.NDArray[np.float64]
CLIP = 5.0
"""Standard deviations beyond which a column no longer moves the logit."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class LinearInputs:
    """Signed log1p where a column is long-tailed, standardised, clipped, unknown = mean + flag."""

    is_logged_F: npt.NDArray[np.bool_]
    mean_F: FloatArray
    inverse_scale_F: FloatArray
    """One over the standard deviation; 0 where the column is constant."""
    is_flagged_F: npt.NDArray[np.bool_]
    """Whether the column has a flag that says that it is unknown."""

    def apply(self, features_BF: FloatArray) -> FloatArray:
        """Return (B, D) finite inputs: ones, columns, then flags of the unknown."""
        known_BF = np.isfinite(features_BF)
        values_BF = signed_log(features_BF, self.is_logged_F)
        scaled_BF = np.where(known_BF, (values_BF - self.mean_F) * self.inverse_scale_F, 0.0)
        flags = (~known_BF[:, self.is_flagged_F]).astype(np.float64)
        ones = np.ones((features_BF.shape[0], 1))
        return np.hstack([ones, np.clip(scaled_BF, -CLIP, CLIP), flags])


def signed_log(features_BF: FloatArray, is_logged_F: npt.NDArray[np.bool_]) -> FloatArray:
    """Take sign(x) * log1p(|x|) of the chosen columns; the unknown becomes 0."""
    known_BF = np.where(np.isfinite(features_BF), features_BF, 0.0)
    logged_BF = np.sign(known_BF) * np.log1p(np.abs(known_BF))
    return np.where(is_logged_F, logged_BF, known_BF)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class LinearModel:
    """A fitted logistic regression that names the columns it reads."""

    columns: tuple[str, ...]
    inputs: LinearInputs
    coefficients_D: FloatArray

    def logits(self, features_BF: FloatArray, names: Sequence[str]) -> FloatArray:
        """Return (B,) float64 logits.

        Args:
            features_BF: (B, all features) float64, NaN where unknown.
            names: Names of its columns; every one of ``columns`` is among them.
        """
        chosen = [list(names).index(name) for name in self.columns]
        return self.inputs.apply(features_BF[:, chosen]) @ self.coefficients_D

    def contributions(self, features_BF: FloatArray, names: Sequence[str]) -> FloatArray:
        """Return (B, all features): by how many logits each raises the risk above the mean's."""
        positions = [list(names).index(name) for name in self.columns]
        design_BD = self.inputs.apply(features_BF[:, positions])
        terms_BD = design_BD * self.coefficients_D
        effects = np.zeros(features_BF.shape)
        num_columns = len(self.columns)
        effects[:, positions] = terms_BD[:, 1 : num_columns + 1]
        flagged = np.asarray(positions)[self.inputs.is_flagged_F]
        effects[:, flagged] += terms_BD[:, num_columns + 1 :]
        return effects

    def to_json(self) -> str:
        """Return the text that ``from_json`` reads back to the same numbers."""
        document = {
            "columns": list(self.columns),
            "is_logged": self.inputs.is_logged_F.tolist(),
            "mean": self.inputs.mean_F.tolist(),
            "inverse_scale": self.inputs.inverse_scale_F.tolist(),
            "is_flagged": self.inputs.is_flagged_F.tolist(),
            "coefficients": self.coefficients_D.tolist(),
        }
        return json.dumps(document, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str, *, file: str) -> LinearModel:
        """Parse a linear member.

        Raises:
            BundleIntegrityError: Not such a file, or its parts do not fit together.
        """
        with damage_named(file):
            document: Mapping[str, Any] = json.loads(text)
            inputs = LinearInputs(
                is_logged_F=np.asarray(document["is_logged"], dtype=np.bool_),
                mean_F=np.asarray(document["mean"], dtype=np.float64),
                inverse_scale_F=np.asarray(document["inverse_scale"], dtype=np.float64),
                is_flagged_F=np.asarray(document["is_flagged"], dtype=np.bool_),
            )
            columns = tuple(str(name) for name in document["columns"])
            coefficients_D = np.asarray(document["coefficients"], dtype=np.float64)
        width = len(columns)
        expected = 1 + width + int(inputs.is_flagged_F.sum())
        lists = (inputs.is_logged_F, inputs.mean_F, inputs.inverse_scale_F, inputs.is_flagged_F)
        if any(values.shape != (width,) for values in lists) or len(set(columns)) < width:
            raise BundleIntegrityError(
                f"{file}: its lists do not all have an entry for each of {width} distinct columns; "
                "restore the bundle or run `churn-train run`"
            )
        if not np.isfinite([inputs.mean_F, inputs.inverse_scale_F]).all():
            raise BundleIntegrityError(
                f"{file} has means or scales that are not finite; restore the bundle or run "
                "`churn-train run`"
            )
        if coefficients_D.shape != (expected,) or not np.isfinite(coefficients_D).all():
            raise BundleIntegrityError(
                f"{file} has {coefficients_D.size} coefficients; {expected} finite ones are needed"
            )
        return cls(columns=columns, inputs=inputs, coefficients_D=coefficients_D)
