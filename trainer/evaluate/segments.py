"""Segments: who belongs to which, by bands of a feature or by values of a profile column.

Bands and categories are taken from training rows, so that a segment means the same at every
cutoff. Bands of a feature can be repeated at scoring, as the row has the feature; profile columns
cannot, as scoring sees features and text alone.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from churn_udf.thresholds import FeatureBands
from trainer.data.snapshot import Snapshot
from trainer.errors import ConfigError
from trainer.evaluate.arrays import AnyArray, FloatArray, IntArray
from trainer.evaluate.baselines import RfmColumns

_RFM = RfmColumns()
#: Short names of slices -> the feature whose bands they are.
SLICE_FEATURES: Mapping[str, str] = {
    "tenure": "tenure_days",
    "value": _RFM.monetary,
    "frequency": _RFM.frequency,
    "recency": _RFM.recency,
}
PROFILE = "profile"
"""Stands for every profile column that divides the customers into groups of some size."""
PROFILE_PREFIX = "profile."
NUM_BANDS = 4
MAX_CATEGORIES = 6
MAX_PROFILE_SLICES = 6
_MIN_NUMBERS = 8  # as many different numbers are a quantity, fewer are names
_MIN_COVERED = 0.5  # a column whose commonest values cover less is an id, not a group
_OTHER, _UNKNOWN = "other", "unknown"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Segmentation:
    """One way to divide all rows of a snapshot."""

    name: str
    """What it is called in settings and reports."""
    source: str
    """The feature or profile column behind it, for people."""
    names: tuple[str, ...]
    """(G,) of the segments, in their order."""
    segment_N: IntArray
    """(N,) number of each row's segment."""
    bands: FeatureBands | None = None
    """How a row is put into a segment at scoring; None for profile columns."""


def find_segmentations(
    snapshot: Snapshot, train: IntArray, wanted: Sequence[str]
) -> list[Segmentation]:
    """Divide the rows in each of the ways that are asked for.

    Args:
        snapshot: The rows.
        train: Training rows, which decide bands and categories.
        wanted: Short names (``SLICE_FEATURES``), features, profile columns (``profile.age``, or
            ``age`` where no feature has that name), or ``profile`` for all that divide well.

    Raises:
        ConfigError: There is no such feature or profile column.
    """
    found: dict[str, Segmentation] = {}
    for name in wanted:
        if name == PROFILE:
            for column in dividing_columns(snapshot, train):
                one = _by_profile(snapshot, train, column)
                found.setdefault(one.name, one)
        else:
            found.setdefault(name, find_segmentation(snapshot, train, name))
    return list(found.values())


def find_segmentation(snapshot: Snapshot, train: IntArray, name: str) -> Segmentation:
    """Divide the rows in one way; see ``find_segmentations``.

    Raises:
        ConfigError: There is no such feature or profile column.
    """
    feature = SLICE_FEATURES.get(name, name)
    if feature in snapshot.feature_names:
        values = snapshot.feature_matrix[:, snapshot.feature_names.index(feature)]
        bands = quantile_bands(feature, values[train])
        return Segmentation(
            name=name,
            source=f"feature {feature}",
            names=bands.names,
            segment_N=bands.groups_of(values),
            bands=bands,
        )
    column = name.removeprefix(PROFILE_PREFIX)
    if column in snapshot.profile_values:
        return dataclasses.replace(_by_profile(snapshot, train, column), name=name)
    profiles = ", ".join(f"{PROFILE_PREFIX}{one}" for one in snapshot.profile_values) or "none"
    raise ConfigError(
        f"slice {name!r} is unknown; allowed: {', '.join(SLICE_FEATURES)}, {PROFILE}, a feature "
        f"({', '.join(snapshot.feature_names)}) or a profile column (in this snapshot: {profiles})"
    )


def quantile_bands(
    feature: str, train_values: npt.ArrayLike, num_bands: int = NUM_BANDS
) -> FeatureBands:
    """Return bands that each hold about as many training rows.

    Args:
        feature: What the values are of.
        train_values: (N,) NaN where unknown.
        num_bands: Bands to aim at; equal and empty ones are merged. Six different values or fewer
            get a band each.

    Returns:
        Bands with bounds of three significant digits, so that people read what is applied.
    """
    values = np.asarray(train_values, dtype=np.float64)
    known = values[np.isfinite(values)]
    if not known.size:
        return FeatureBands(feature=feature, bounds=())
    lowest = known.min()
    rest = known[known > lowest]
    if np.unique(known).size <= MAX_CATEGORIES:
        edges = np.unique(rest)
    elif known.size - rest.size >= known.size / num_bands:
        # Many at the lowest value, such as no spend at all: they are a band of their own.
        shares = np.arange(1, num_bands - 1) / (num_bands - 1)
        edges = np.append(np.quantile(rest, shares), rest.min())
    else:
        edges = np.quantile(known, np.arange(1, num_bands) / num_bands)
    rounded = sorted({float(f"{edge:.3g}") for edge in edges})
    return FeatureBands(
        feature=feature,
        bounds=tuple(bound for bound in rounded if lowest < bound <= known.max()),
    )


def dividing_columns(snapshot: Snapshot, train: IntArray) -> list[str]:
    """Return the profile columns that make groups of some size, at most six."""
    num_rows: Counter[str] = Counter(snapshot.user_ids(train))
    found = []
    for column, values in snapshot.profile_values.items():
        counts = _count_values(values, num_rows)
        covered = sum(count for _, count in counts.most_common(MAX_CATEGORIES))
        is_group = covered >= _MIN_COVERED * max(counts.total(), 1) or _are_numbers(counts)
        if len(counts) > 1 and is_group:
            found.append(column)
    return found[:MAX_PROFILE_SLICES]


def _by_profile(snapshot: Snapshot, train: IntArray, column: str) -> Segmentation:
    """Divide by a profile column: bands of a quantity, else the commonest values."""
    values = snapshot.profile_values[column]
    encoded = snapshot.table.column("user_id").combine_chunks().dictionary_encode()
    texts = [values.get(user) for user in encoded.dictionary.to_pylist()]
    user_N = np.asarray(encoded.indices.to_numpy(zero_copy_only=False), dtype=np.int64)
    counts = _count_values(values, Counter(snapshot.user_ids(train)))
    if _are_numbers(counts):
        numbers = np.array([np.nan if text is None else _number(text) for text in texts])
        bands = quantile_bands(column, numbers[user_N][train])
        names, segment_U = bands.names, bands.groups_of(numbers)
    else:
        names, segment_U = _categories(texts, counts)
    return Segmentation(
        name=f"{PROFILE_PREFIX}{column}",
        source=f"profile column {column}, as it stands today",
        names=names,
        segment_N=segment_U[user_N],
    )


def _categories(
    texts: Sequence[str | None], counts: Counter[str]
) -> tuple[tuple[str, ...], IntArray]:
    """Return names, and each user's number: the commonest values, other, unknown."""
    ordered = sorted(counts, key=lambda value: (-counts[value], value))
    kept = ordered if len(ordered) <= MAX_CATEGORIES + 1 else ordered[:MAX_CATEGORIES]
    places = {value: place for place, value in enumerate(kept)}
    numbers: AnyArray = np.array(
        [len(kept) + 1 if text is None else places.get(text, len(kept)) for text in texts]
    )
    return (*kept, _OTHER, _UNKNOWN), numbers.astype(np.int64)


def _count_values(values: Mapping[str, str], num_rows: Mapping[str, int]) -> Counter[str]:
    """Count the training rows of each value."""
    counts: Counter[str] = Counter()
    for user, value in values.items():
        if num_rows.get(user):
            counts[value] += num_rows[user]
    return counts


def _are_numbers(counts: Mapping[str, int]) -> bool:
    """Return whether the values are a quantity: all numbers, and many different ones."""
    numbers: FloatArray = np.array([_number(value) for value in counts])
    return len(counts) >= _MIN_NUMBERS and bool(np.isfinite(numbers).all())


def _number(text: str) -> float:
    """Return the number that a text states, NaN for any other text."""
    try:
        return float(text)
    except ValueError:
        return float("nan")
