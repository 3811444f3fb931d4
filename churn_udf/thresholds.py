"""Applying thresholds: probabilities in, risk tiers and flags out.

Choosing them lives in ``trainer.evaluate.thresholds``; they travel as ``thresholds.json``.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from collections.abc import Mapping
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
class Thresholds:
    """Where a probability becomes a flag, and which tier it belongs to.

    Attributes:
        flag_threshold: Rows with at least this probability are flagged, [0, 1].
        tiers: Highest first; the last starts at 0, so every row has a tier.
        strategy: How the numbers were chosen, for the reader.
    """

    flag_threshold: float
    tiers: tuple[Tier, ...]
    strategy: Mapping[str, Any] = dataclasses.field(default_factory=dict)

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

    def flags_of(self, probabilities: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
        """Return which rows are flagged.

        Args:
            probabilities: (N,) in [0, 1].
        """
        return np.asarray(probabilities >= self.flag_threshold, dtype=np.bool_)

    def to_json(self) -> str:
        """Return the text of ``thresholds.json``."""
        return json.dumps(dataclasses.asdict(self), indent=2, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Thresholds:
        """Parse ``thresholds.json``.

        Raises:
            BundleIntegrityError: Not what ``to_json`` writes.
        """
        try:
            document = json.loads(text)
            return cls(
                flag_threshold=float(document["flag_threshold"]),
                tiers=tuple(
                    Tier(name=str(tier["name"]), min_probability=float(tier["min_probability"]))
                    for tier in document["tiers"]
                ),
                strategy=dict(document.get("strategy", {})),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise BundleIntegrityError(f"thresholds.json is damaged: {error!r}") from error
