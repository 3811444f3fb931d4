"""The gradient-boosted member of an ensemble, kept in LightGBM's own text format."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from churn_udf.errors import BundleIntegrityError
from churn_udf.model.tree_effects import TreeEffects, UnsupportedTreeError

FloatArray = npt.NDArray[np.float64]


class TreeModel:
    """LightGBM trees read from text; never unpickled.

    Args:
        text: ``Booster.model_to_string()``.
        names: Feature names in model order.
        file: Where the text was read, for messages.

    Raises:
        BundleIntegrityError: Not a LightGBM model, or one of other features.
    """

    def __init__(self, text: str, names: Sequence[str], *, file: str) -> None:
        import lightgbm  # costs a second; a bundle without trees does not need it

        if not _is_whole(text):  # the library ends the process on some damaged texts
            raise BundleIntegrityError(
                f"{file} is no LightGBM text or a part of one; restore the bundle or run "
                "`churn-train run`"
            )
        try:
            self._booster = lightgbm.Booster(model_str=text)
            found = self._booster.feature_name()
        except (lightgbm.basic.LightGBMError, ValueError) as error:
            raise BundleIntegrityError(
                f"{file} is damaged ({error}); restore the bundle"
            ) from error
        if found != list(names):
            raise BundleIntegrityError(
                f"{file} reads {len(found)} features and they are not the {len(names)} of the "
                "bundle; train a new model with `churn-train run`"
            )
        self._effects: TreeEffects | None = None
        self._is_tabulated = False

    def logits(self, features_BF: FloatArray) -> FloatArray:
        """Return (B,) float64 logits of (B, F) features, NaN where unknown."""
        return _predict(self._booster, features_BF, raw_score=True)

    def contributions(self, features_BF: FloatArray) -> FloatArray:
        """Return (B, F): by how many logits each feature raises the risk (TreeSHAP).

        Lundberg et al. 2020, as LightGBM implements it: relative to the mean training row.
        From tables made at the first call, an order of magnitude faster than LightGBM, which
        is asked where a tree cannot be tabulated.
        """
        if not self._is_tabulated:
            self._effects = _tabulated(self._booster)
            self._is_tabulated = True
        if self._effects is None:
            return _predict(self._booster, features_BF, pred_contrib=True)[:, :-1]
        return self._effects.contributions(features_BF)


def _tabulated(booster: Any) -> TreeEffects | None:
    """Return the tables of a booster, or none where it has none."""
    try:
        return TreeEffects(booster.dump_model())
    except UnsupportedTreeError:
        return None


def _is_whole(text: str) -> bool:
    """Return whether a text has all trees that its header tells of, and the end of the file."""
    header, _, trees = text.partition("\n\n")
    lines = header.split("\n")
    sizes = [line.partition("=")[2].split() for line in lines if line.startswith("tree_sizes=")]
    if lines[0] != "tree" or len(sizes) != 1 or "\nend of parameters\n" not in text:
        return False
    start = 0
    for index, size in enumerate(sizes[0]):
        if not size.isdecimal() or not trees.startswith(f"Tree={index}\n", start):
            return False
        start += int(size)
    return trees.startswith("end of trees\n", start)


def _predict(booster: object, features_BF: FloatArray, **options: bool) -> FloatArray:
    """Predict on one thread: sums of doubles must not depend on how rows are dealt out."""
    finite = np.where(np.isfinite(features_BF), features_BF, np.nan)
    values = booster.predict(finite, num_threads=1, **options)  # type: ignore[attr-defined]
    return np.asarray(values, dtype=np.float64)
