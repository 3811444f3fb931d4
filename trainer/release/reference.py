"""What a model learned from, summed up for its bundle: see ``churn_udf.contracts.reference``.

Features, tokens and base rates are those of the rows that the shipped fit learned from, all their
cutoffs pooled, so that every season in them counts as known. The score's are of the newest cutoff
of the snapshot, whose labels nobody knew: on rows it has learned from a model is too sure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from churn_udf.calibration import Calibrator
from churn_udf.contracts.bundle import CALIBRATION_FILE
from churn_udf.contracts.reference import (
    BAND_FEATURES,
    SCORE_SUBJECT,
    BaseRates,
    Distribution,
    Reference,
    TokenCounts,
    stratum_of,
)
from trainer.candidates import shipped_logits
from trainer.data.snapshot import Snapshot
from trainer.data.splits import Splits, as_date
from trainer.fit.refit import planned_refits
from trainer.runs import Run

FloatArray: TypeAlias = npt.NDArray[np.float64]
IntArray: TypeAlias = npt.NDArray[np.int64]

NUM_POINTS = 256
NUM_BINS = 10
LEAST_BIN_SHARE = 0.02
NUM_WORDS = 200
MAX_FEATURE_ROWS = 200_000
MAX_TEXT_ROWS = 50_000
MAX_SCORE_ROWS = 2_048
SCORE_DECIMALS = 6
"""So that packaging again on another day gives the same bytes."""
NUM_BANDS = (4, 3, 3)
"""Of recency, frequency and tenure."""
NOT_WORD = r"[^\p{L}\p{M}\p{N}]+"
"""As in the dbt macro ``word_text``."""


def make_reference(run: Run, snapshot: Snapshot, splits: Splits) -> Reference:
    """Return the reference of a judged run's model.

    Args:
        run: A judged run.
        snapshot: Its rows.
        splits: Its splits.
    """
    rows = shipped_rows(run, splits)
    newest = newest_rows(snapshot)
    calibrator = Calibrator.from_json((run.path / CALIBRATION_FILE).read_text(encoding="utf-8"))
    probabilities = calibrator.apply(shipped_logits(run, snapshot, newest))
    dates = snapshot.cutoff_dates[rows]
    sample = evenly(rows, MAX_FEATURE_ROWS)
    matrix = snapshot.feature_matrix[sample]
    num_users = len(set(snapshot.user_ids(sample)))
    return Reference(
        first_cutoff=as_date(dates.min()).isoformat(),
        last_cutoff=as_date(dates.max()).isoformat(),
        features=tuple(
            distribution_of(name, matrix[:, index], num_users)
            for index, name in enumerate(snapshot.feature_names)
        ),
        tokens=count_tokens(snapshot, evenly(rows, MAX_TEXT_ROWS)),
        score=distribution_of(
            SCORE_SUBJECT, np.round(probabilities, SCORE_DECIMALS), len(probabilities)
        ),
        base_rates=base_rates_of(
            snapshot.feature_names, snapshot.feature_matrix[rows], snapshot.labels[rows]
        ),
    )


def shipped_rows(run: Run, splits: Splits) -> IntArray:
    """Return the rows that the fit which ships has learned from."""
    refits = list(planned_refits(splits, run.config.fit.refit).values())
    return np.asarray(refits[-1] if refits else splits.train)


def newest_rows(snapshot: Snapshot) -> IntArray:
    """Return some rows of the newest cutoff."""
    newest = np.flatnonzero(snapshot.cutoff_dates == snapshot.cutoff_dates.max())
    return evenly(newest, MAX_SCORE_ROWS)


def evenly(rows: IntArray, most: int) -> IntArray:
    """Return at most so many rows, evenly spaced."""
    if len(rows) <= most:
        return rows
    return np.asarray(rows[np.linspace(0, len(rows) - 1, most).round().astype(np.int64)])


def distribution_of(name: str, values_N: FloatArray, num_users: int) -> Distribution:
    """Sum up values; those that are not finite count as unknown.

    Args:
        name: Feature, or the score.
        values_N: (N,) values.
        num_users: Different users among the rows.
    """
    known = values_N[np.isfinite(values_N)] + 0.0  # no negative zero
    distinct, counts = np.unique(known, return_counts=True)
    points, weights = support_points(distinct, counts)
    bounds = bin_bounds(distinct, counts)
    places = np.searchsorted(bounds, distinct, side="left")
    in_bins = np.bincount(places, weights=counts, minlength=len(bounds) + 1)
    with np.errstate(over="ignore", invalid="ignore"):
        moments = (known.mean(), known.std(), spread_of(points, weights)) if known.size else ()
    mean, deviation, spread = (
        (float(one) if np.isfinite(one) else None) for one in (*moments, *[np.nan] * 3)[:3]
    )
    return Distribution(
        name=name,
        row_count=len(values_N),
        user_count=num_users,
        mean=mean,
        standard_deviation=deviation,
        spread=spread,
        bin_upper_bounds=tuple(bounds.tolist()),
        bin_counts=tuple(in_bins.astype(np.int64).tolist()),
        point_values=tuple(points.tolist()),
        point_counts=tuple(weights.tolist()),
    )


def support_points(
    distinct: FloatArray, counts: IntArray, most: int = NUM_POINTS
) -> tuple[FloatArray, IntArray]:
    """Return rising values with counts that stand for all of them.

    Few values stand for themselves. Of many, one that holds the share of a point stands for
    itself, and runs of neighbours between are replaced by their mean, which keeps the mean.

    Args:
        distinct: Rising values.
        counts: How often each occurs.
        most: About so many points; at most three times as many.
    """
    if len(distinct) <= most:
        return distinct, counts.astype(np.int64)
    total = counts.sum()
    is_heavy = counts * most >= total
    middles = np.cumsum(counts) - counts / 2
    group = np.floor(middles * most / total).astype(np.int64)
    starts = np.ones(len(distinct), dtype=np.bool_)
    starts[1:] = (group[1:] != group[:-1]) | is_heavy[1:] | is_heavy[:-1]
    first = np.flatnonzero(starts)
    weights = np.add.reduceat(counts, first)
    # shares first, so that huge values do not overflow
    shares = counts / np.repeat(weights, np.diff(np.append(first, len(distinct))))
    means = np.add.reduceat(distinct * shares, first)
    low, high = distinct[first], distinct[np.append(first[1:], len(distinct)) - 1]
    return np.clip(means, low, high), weights.astype(np.int64)


def bin_bounds(distinct: FloatArray, counts: IntArray) -> FloatArray:
    """Return the upper bounds of bins, each of about a tenth of the rows; the last has none.

    A value that holds a tenth by itself, such as zero, has its bin to itself unless what lies
    before it is too little for a bin.

    Args:
        distinct: Rising values.
        counts: How often each occurs.
    """
    total = counts.sum()
    bounds: list[float] = []
    inside = 0
    remaining = int(total)
    for place, count in enumerate(counts[:-1].tolist()):
        inside += count
        remaining -= count
        next_is_heavy = counts[place + 1] * NUM_BINS >= total
        is_full = inside * NUM_BINS >= total or (
            next_is_heavy and inside >= LEAST_BIN_SHARE * total
        )
        if is_full and remaining >= LEAST_BIN_SHARE * total:
            bounds.append(float(distinct[place]))
            inside = 0
    return np.asarray(bounds, dtype=np.float64)


def spread_of(points: FloatArray, weights: IntArray) -> float:
    """Return the integral of sqrt(F (1 - F)) over the values."""
    below = np.cumsum(weights)[:-1] / weights.sum()
    return float(np.sum(np.sqrt(below * (1.0 - below)) * np.diff(points)))


def count_tokens(snapshot: Snapshot, rows: IntArray) -> TokenCounts:
    """Count in how many rows each word stands, and keep the most frequent ones."""
    places, words = row_words(*snapshot.texts(rows))
    encoded = words.dictionary_encode()
    vocabulary = encoded.dictionary.to_pylist()
    codes = encoded.indices.to_numpy(zero_copy_only=False)
    pairs = np.unique(places * max(1, len(vocabulary)) + codes)
    row_of, code_of = np.divmod(pairs, max(1, len(vocabulary)))
    frequency = np.bincount(code_of, minlength=len(vocabulary))
    order = sorted(range(len(vocabulary)), key=lambda code: (-frequency[code], vocabulary[code]))
    kept = order[:NUM_WORDS]
    is_other = ~np.isin(code_of, kept)
    return TokenCounts(
        row_count=len(rows),
        user_count=len(set(snapshot.user_ids(rows))),
        words=tuple(vocabulary[code] for code in kept),
        counts=tuple(int(frequency[code]) for code in kept),
        other_count=len(np.unique(row_of[is_other])),
    )


def row_words(*texts: pa.Array) -> tuple[IntArray, pa.Array]:
    """Return every word of texts that belong together, and the row of each.

    Words are cut as the warehouse cuts them: ``word_text`` of each text, split at blanks.

    Args:
        texts: (B,) strings each.
    """
    rows, words = [], []
    for text in texts:
        plain = pc.replace_substring_regex(pc.utf8_lower(text), pattern=NOT_WORD, replacement=" ")
        split = pc.split_pattern(plain, pattern=" ")
        flat = split.flatten()
        parents = pc.list_parent_indices(split).to_numpy(zero_copy_only=False)
        is_word = pc.not_equal(flat, "").to_numpy(zero_copy_only=False)
        rows.append(parents[is_word])
        words.append(flat.filter(pa.array(is_word)))
    return np.concatenate(rows).astype(np.int64), pa.concat_arrays(words)


def base_rates_of(
    names: Sequence[str], matrix: FloatArray, labels_N: FloatArray
) -> BaseRates | None:
    """Return churn rates by stratum; None where a feature that makes strata is missing.

    Args:
        names: Features of the matrix's columns.
        matrix: (N, F) features of labelled rows.
        labels_N: (N,) 0/1.
    """
    if not set(BAND_FEATURES) <= set(names):
        return None
    bounds = []
    bands = np.empty((len(matrix), len(BAND_FEATURES)), dtype=np.int64)
    for index, (name, count) in enumerate(zip(BAND_FEATURES, NUM_BANDS, strict=True)):
        values = matrix[:, list(names).index(name)]
        is_known = np.isfinite(values)
        shares = np.arange(1, count) / count
        inner = (
            np.unique(np.quantile(values[is_known], shares, method="inverted_cdf"))
            if is_known.any()
            else np.empty(0)
        )
        bounds.append(tuple(inner.tolist()))
        bands[:, index] = np.where(is_known, np.searchsorted(inner, values, side="left"), -1)
    numbers = np.array([stratum_of(tuple(row)) for row in bands.tolist()], dtype=np.int64)
    strata, places = np.unique(numbers, return_inverse=True)
    churned = np.bincount(places, weights=labels_N, minlength=len(strata))
    return BaseRates(
        row_count=len(labels_N),
        churned_count=int(labels_N.sum()),
        band_bounds=tuple(bounds),
        strata=tuple(strata.tolist()),
        stratum_counts=tuple(np.bincount(places, minlength=len(strata)).tolist()),
        stratum_churned_counts=tuple(churned.astype(np.int64).tolist()),
    )
