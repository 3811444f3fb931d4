"""Reference contract: what the rows that a model learned from look like, kept in its bundle.

``reference.json`` is what drift and changes of the base rate are measured against. A bundle
without it scores like any other and has no drift.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from churn_udf.errors import BundleIntegrityError

REFERENCE_VERSION = 1
SCORE_SUBJECT = "churn_probability"
OTHER_TOKEN = "[other]"
"""Subject that stands for every word that is not listed; no word has a bracket."""
BAND_FEATURES = ("days_since_active", "active_day_count_90d", "tenure_days")
"""Features whose bands make the strata of users: recency, frequency, tenure."""
BAND_BASE = 100
"""Bands of a feature, the unknown one among them, are fewer."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Distribution:
    """Values of a feature or of the score."""

    name: str
    row_count: int
    """Rows, those of an unknown value among them."""
    user_count: int
    """Different users among the rows: rows of one user at many cutoffs are alike."""
    mean: float | None
    """Of the known values; None without one, or where it is too large for a number."""
    standard_deviation: float | None
    spread: float | None
    """Integral of sqrt(F (1 - F)): how far chance moves a Wasserstein distance."""
    bin_upper_bounds: tuple[float, ...]
    """Rising; a value on a bound belongs below it. There is one bin more than bounds."""
    bin_counts: tuple[int, ...]
    point_values: tuple[float, ...]
    """Rising; each value where they are few, else means of neighbouring values."""
    point_counts: tuple[int, ...]

    @property
    def known_count(self) -> int:
        """Rows with a known, finite value."""
        return sum(self.point_counts)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenCounts:
    """In how many rows' texts each word stands."""

    row_count: int
    user_count: int
    words: tuple[str, ...]
    counts: tuple[int, ...]
    other_count: int
    """Rows with a word that is not listed."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class BaseRates:
    """Churn rates of users by recency, frequency and tenure, over every labelled row."""

    row_count: int
    churned_count: int
    band_bounds: tuple[tuple[float, ...], ...]
    """For each of ``BAND_FEATURES``; a value on a bound belongs below it."""
    strata: tuple[int, ...]
    """See ``stratum_of``."""
    stratum_counts: tuple[int, ...]
    stratum_churned_counts: tuple[int, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reference:
    """Content of ``reference.json``."""

    first_cutoff: str
    """Oldest cutoff of the rows, ISO 8601."""
    last_cutoff: str
    features: tuple[Distribution, ...]
    tokens: TokenCounts
    score: Distribution
    """Probabilities of rows that the model has not learned from."""
    base_rates: BaseRates | None
    """None where a feature of ``BAND_FEATURES`` is missing."""
    reference_version: int = REFERENCE_VERSION

    def to_json(self) -> str:
        """Return the text of the file."""
        document = dataclasses.asdict(self)
        return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False) + "\n"

    @classmethod
    def from_mapping(cls, document: Mapping[str, Any], *, path: str) -> Reference:
        """Read the content of the file.

        Args:
            document: Parsed JSON.
            path: Where it was read, for messages.

        Raises:
            BundleIntegrityError: A field is missing or of another shape, or another version.
        """
        try:
            version = document["reference_version"]
            if version != REFERENCE_VERSION:
                raise BundleIntegrityError(
                    f"{path}: reference format {version!r}; this release reads "
                    f"{REFERENCE_VERSION}; train a new model with `churn-train run`"
                )
            rates = document["base_rates"]
            return cls(
                first_cutoff=document["first_cutoff"],
                last_cutoff=document["last_cutoff"],
                features=tuple(_read(Distribution, part) for part in document["features"]),
                tokens=_read(TokenCounts, document["tokens"]),
                score=_read(Distribution, document["score"]),
                base_rates=None if rates is None else _read(BaseRates, rates),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BundleIntegrityError(
                f"{path} is not a reference ({type(error).__name__}: {error}); restore it from a "
                "copy, or train a new model with `churn-train run`"
            ) from error


def stratum_of(bands: tuple[int, ...]) -> int:
    """Return the number of a stratum.

    Args:
        bands: Per feature the number of bounds below the value; -1 where it is unknown.
    """
    number = 0
    for band in bands:
        number = number * BAND_BASE + band + 1
    return number


def _read(kind: type[Any], document: Mapping[str, Any]) -> Any:
    """Return a dataclass of a mapping, lists as tuples."""
    return kind(**{name: _as_tuple(value) for name, value in document.items()})


def _as_tuple(value: Any) -> Any:
    """Return lists, also inside lists, as tuples."""
    return tuple(_as_tuple(item) for item in value) if isinstance(value, list) else value
