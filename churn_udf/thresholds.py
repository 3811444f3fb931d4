"""Applying thresholds: probabilities in, risk tiers and flags out.

Choosing them lives in ``trainer.evaluate.thresholds``; they travel as ``thresholds.json``.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from churn_udf.errors import BundleIntegrityError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tier:
    """A named band of risk that starts at ``min_probability``."""

    name: str
    min_probability: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class FeatureBands:
    """Bands of one numeric input, by which any row can be put into a group.

    Attributes:
        feature: Name of the input.
        bounds: (K,) rising; band 0 lies below the first, band K starts at the last; a value on
            a bound belongs above it. Group K + 1 holds the rows whose value is unknown.
    """

    feature: str
    bounds: tuple[float, ...]

    def __post_init__(self) -> None:
        """Check the order.

        Raises:
            BundleIntegrityError: Bounds that do not rise, or are not finite.
        """
        is_rising = all(low < high for low, high in itertools.pairwise(self.bounds))
        if not is_rising or not all(math.isfinite(bound) for bound in self.bounds):
            raise BundleIntegrityError(
                f"bands of {self.feature!r}: bounds {list(self.bounds)}; "
                "allowed: finite numbers, each above the one before"
            )

    @property
    def names(self) -> tuple[str, ...]:
        """(K + 2,) what people call the groups, in order."""
        if not self.bounds:
            return ("all", "unknown")
        texts = [f"{bound:,.6g}" for bound in self.bounds]
        between = [f"{low} to under {high}" for low, high in itertools.pairwise(texts)]
        return (f"under {texts[0]}", *between, f"{texts[-1]} and more", "unknown")

    def groups_of(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
        """Return each row's group.

        Args:
            values: (N,) of the feature, NaN where unknown.

        Returns:
            (N,) in 0 .. K + 1.
        """
        groups = np.searchsorted(np.asarray(self.bounds), values, side="right")
        return np.where(np.isnan(values), len(self.bounds) + 1, groups).astype(np.int64)


@dataclasses.dataclass(frozen=True, kw_only=True)
class GroupThresholds:
    """Flag thresholds by group, in place of the one for everybody.

    Attributes:
        slice: What the groups are called together, such as ``tenure``.
        bands: Which rows form a group.
        flag_thresholds: (K + 2,) in [0, 1], in the order of ``bands.names``.
    """

    slice: str
    bands: FeatureBands
    flag_thresholds: tuple[float, ...]

    def __post_init__(self) -> None:
        """Check number and range.

        Raises:
            BundleIntegrityError: Not one threshold in [0, 1] for each group.
        """
        expected = len(self.bands.bounds) + 2
        is_share = all(0.0 <= bound <= 1.0 for bound in self.flag_thresholds)
        if len(self.flag_thresholds) != expected or not is_share:
            raise BundleIntegrityError(
                f"flag thresholds {list(self.flag_thresholds)} of the groups of {self.slice!r}; "
                f"allowed: {expected} numbers in [0, 1]"
            )

    @classmethod
    def from_mapping(cls, document: Mapping[str, Any]) -> GroupThresholds:
        """Read what ``dataclasses.asdict`` writes."""
        bands = document["bands"]
        return cls(
            slice=str(document["slice"]),
            bands=FeatureBands(
                feature=str(bands["feature"]), bounds=tuple(map(float, bands["bounds"]))
            ),
            flag_thresholds=tuple(map(float, document["flag_thresholds"])),
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Thresholds:
    """Where a probability becomes a flag, and which tier it belongs to.

    Attributes:
        flag_threshold: Rows with at least this probability are flagged, [0, 1].
        tiers: Highest first; the last starts at 0, so every row has a tier.
        strategy: How the numbers were chosen, for the reader.
        groups: Flag thresholds by group; None when ``flag_threshold`` holds for everybody.
            Tiers are bands of the probability and the same for all groups.
    """

    flag_threshold: float
    tiers: tuple[Tier, ...]
    strategy: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    groups: GroupThresholds | None = None

    def __post_init__(self) -> None:
        """Check ranges and order.

        Raises:
            BundleIntegrityError: A threshold outside [0, 1], tiers not falling to 0, a name twice.
        """
        bounds = [tier.min_probability for tier in self.tiers]
        names = [tier.name for tier in self.tiers]
        if not all(math.isfinite(b) and 0 <= b <= 1 for b in [self.flag_threshold, *bounds]):
            raise BundleIntegrityError(
                f"thresholds {self.flag_threshold!r}, {bounds}; allowed: numbers in [0, 1]"
            )
        is_falling = all(high > low for high, low in itertools.pairwise(bounds))
        if not bounds or bounds[-1] != 0.0 or not is_falling or len(set(names)) != len(names):
            raise BundleIntegrityError(
                f"tiers {list(zip(names, bounds, strict=True))}; allowed: distinct names, "
                "falling bounds, the last one 0.0"
            )

    def tiers_of(self, probabilities: npt.NDArray[np.float64]) -> pa.StringArray:
        """Return each row's tier name; a probability on a bound belongs to the tier above it.

        Args:
            probabilities: (N,) in [0, 1].
        """
        bounds = np.array([tier.min_probability for tier in reversed(self.tiers)])
        names = pa.array([tier.name for tier in reversed(self.tiers)], pa.string())
        return names.take(pa.array(np.searchsorted(bounds, probabilities, side="right") - 1))

    def flags_of(
        self,
        probabilities: npt.NDArray[np.float64],
        features: npt.NDArray[np.float64],
        feature_names: Sequence[str],
    ) -> npt.NDArray[np.bool_]:
        """Return which rows are flagged.

        Args:
            probabilities: (N,) in [0, 1].
            features: (N, F) numeric inputs, NaN where unknown; read where there are groups.
            feature_names: (F,) their names.

        Raises:
            BundleIntegrityError: The groups are made of a feature that is not there.
        """
        if self.groups is None:
            return np.asarray(probabilities >= self.flag_threshold, dtype=np.bool_)
        self.require_features(feature_names)
        bands = self.groups.bands
        groups = bands.groups_of(features[:, list(feature_names).index(bands.feature)])
        thresholds = np.asarray(self.groups.flag_thresholds)[groups]
        return np.asarray(probabilities >= thresholds, dtype=np.bool_)

    def require_features(self, feature_names: Sequence[str]) -> None:
        """Check that the feature behind the groups is among the model's inputs.

        Raises:
            BundleIntegrityError: It is not.
        """
        if self.groups is not None and self.groups.bands.feature not in feature_names:
            raise BundleIntegrityError(
                f"thresholds.json sets flags by {self.groups.bands.feature!r}, which is not among "
                f"the {len(feature_names)} features of the model; train a new model with "
                "`churn-train run`"
            )

    def to_json(self) -> str:
        """Return the text of ``thresholds.json``; without ``groups`` where there are none."""
        document = dataclasses.asdict(self)
        if self.groups is None:
            del document["groups"]
        return json.dumps(document, indent=2, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Thresholds:
        """Parse ``thresholds.json``.

        Raises:
            BundleIntegrityError: Not what ``to_json`` writes.
        """
        try:
            document = json.loads(text)
            groups = document.get("groups")
            return cls(
                flag_threshold=float(document["flag_threshold"]),
                tiers=tuple(
                    Tier(name=str(tier["name"]), min_probability=float(tier["min_probability"]))
                    for tier in document["tiers"]
                ),
                strategy=dict(document.get("strategy", {})),
                groups=GroupThresholds.from_mapping(groups) if groups is not None else None,
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BundleIntegrityError(f"thresholds.json is damaged: {error!r}") from error
