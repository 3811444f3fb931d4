"""Metrics by segment: for whom the model works, and for whom it does not.

All segments of a call see the same bootstrap draws of users, so that the distance of a segment
from everybody is paired. A segment's AUROC is usually below everybody's where the segment is made
of something that predicts churn, as what the segment has in common no longer helps to rank inside
it: a low one is no proof of unfairness. Its calibration gap is comparable as it stands.

Shape letters: N rows, n rows of a segment, S bootstrap samples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from trainer.evaluate.arrays import (
    AnyArray,
    FloatArray,
    IntArray,
    as_labels,
    as_probabilities,
    group_indices,
)
from trainer.evaluate.bootstrap import (
    BIASED_METRIC,
    percentile_interval,
    resampled_weights,
    without_excess,
)
from trainer.evaluate.metrics import RankedRows, rank_rows, weighted_metrics
from trainer.evaluate.reliability import reliability_table

SLICE_METRICS = (
    "auroc",
    "average_precision",
    "log_loss",
    "brier_score",
    "expected_calibration_error",
    "base_rate",
    "mean_probability",
    "calibration_gap",
    "flag_rate",
    "recall",
    "precision",
)
#: Metrics that are told against everybody, too: "<name>_against_all" is segment minus all.
AGAINST_ALL = ("auroc", "calibration_gap", "recall", "flag_rate")
MIN_CLASS_ROWS = 20
"""Churners and stayers that a segment needs: with fewer, chance decides its numbers."""
MAX_SAMPLES = 400
"""Bootstrap samples at most: there are many segments, and 400 place a 95 % interval well."""

_RANKED_METRICS = SLICE_METRICS[:6]


class Rows(NamedTuple):
    """Judged rows of one split."""

    labels: npt.ArrayLike
    """(N,) 0/1."""
    probabilities: npt.ArrayLike
    """(N,) calibrated, in [0, 1]."""
    flags: npt.ArrayLike
    """(N,) bool."""
    users: npt.ArrayLike
    """(N,) user ids."""


class Division(NamedTuple):
    """One way to divide the rows."""

    name: str
    source: str
    """What it is made of, for people."""
    names: Sequence[str]
    """(G,) of the segments."""
    segments: npt.ArrayLike
    """(N,) number of each row's segment, 0 .. G - 1."""


def slice_document(
    rows: Rows,
    divisions: Sequence[Division],
    *,
    num_samples: int = MAX_SAMPLES,
    seed: int = 0,
    confidence: float = 0.95,
    min_users: int = 100,
) -> dict[str, Any]:
    """Measure every segment of every division, with intervals from resampling users.

    Args:
        rows: What is judged.
        divisions: How to divide it.
        num_samples: Bootstrap samples; more than ``MAX_SAMPLES`` are not drawn.
        seed: The same seed gives the same intervals.
        confidence: Width of the intervals, (0, 1).
        min_users: Users that a segment needs to be measured.

    Returns:
        JSON-ready: ``confidence``, ``num_bootstrap``, ``min_users``, ``all`` (metrics and
        reliability of all rows) and ``by`` {division: {source, segments}}. A segment has
        ``segment``, ``rows``, ``users``, ``churned``; ``too_small``, the reason why it is not
        measured, or None; and where it is, ``metrics`` {name: {value, low, high}} for
        ``SLICE_METRICS`` and ``AGAINST_ALL``, and ``reliability`` (see ``reliability_table``).

    Raises:
        ValueError: If the arrays do not fit together.
    """
    checked = _Checked.of(rows)
    num_drawn = min(num_samples, MAX_SAMPLES)
    everybody = _Part(checked, np.arange(checked.labels_N.size))
    facts: dict[str, list[dict[str, Any]]] = {}
    measured: list[tuple[dict[str, Any], _Part]] = []
    for division in divisions:
        facts[division.name] = []
        segment_N = np.asarray(division.segments)
        if segment_N.shape != checked.labels_N.shape:
            raise ValueError(
                f"segments of {division.name!r} must have shape {checked.labels_N.shape}; "
                f"got {segment_N.shape}"
            )
        for number, name in enumerate(division.names):
            inside = np.flatnonzero(segment_N == number)
            if inside.size:
                part = _Part(checked, inside)
                fact = part.facts(name, min_users)
                facts[division.name].append(fact)
                if fact["too_small"] is None:
                    measured.append((fact, part))
    parts = [everybody, *(part for _, part in measured)]
    for weights_NS in resampled_weights(checked.user_N, checked.num_users, num_drawn, seed):
        for part in parts:
            part.add_samples(weights_NS)
    for fact, part in measured:
        fact["metrics"] = part.intervals(confidence, everybody)
        fact["reliability"] = part.reliability(confidence)
    return {
        "confidence": confidence,
        "num_bootstrap": num_drawn,
        "min_users": min_users,
        "all": {
            "metrics": everybody.intervals(confidence, None),
            "reliability": everybody.reliability(confidence),
        },
        "by": {
            division.name: {"source": division.source, "segments": facts[division.name]}
            for division in divisions
        },
    }


def worst_segments(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Name the measured segment that ranks worst and the one whose probabilities are furthest off.

    Args:
        document: With ``by`` as in ``slice_document``.

    Returns:
        {"auroc" | "calibration_gap": {slice, segment, value, low, high}}; the gap is furthest from
        zero against everybody. Without a measured segment, empty.
    """
    measured = [
        (name, segment)
        for name, division in document["by"].items()
        for segment in division["segments"]
        if segment["too_small"] is None
    ]
    badness = {"auroc": ("auroc", -1.0), "calibration_gap": ("calibration_gap_against_all", 0.0)}
    worst = {}
    for title, (metric, sign) in badness.items():
        scores = [
            (sign * value if sign else abs(value), name, segment)
            for name, segment in measured
            if (value := segment["metrics"][metric]["value"]) is not None
        ]
        if scores:
            _, name, segment = max(scores, key=lambda one: one[0])
            worst[title] = {
                "slice": name,
                "segment": segment["segment"],
                "users": segment["users"],
                **segment["metrics"][metric],
            }
    return worst


class _Checked(NamedTuple):
    """Rows as arrays that fit together."""

    labels_N: FloatArray
    probabilities_N: FloatArray
    flags_N: FloatArray
    users_N: AnyArray
    user_N: IntArray
    num_users: int

    @classmethod
    def of(cls, rows: Rows) -> _Checked:
        labels_N = as_labels(rows.labels)
        probabilities_N = as_probabilities(rows.probabilities, labels_N.size)
        flags_N = np.asarray(rows.flags, dtype=np.float64)
        if flags_N.shape != labels_N.shape:
            raise ValueError(f"flags must have shape {labels_N.shape}; got {flags_N.shape}")
        user_N, num_users = group_indices(rows.users, labels_N.size)
        return cls(labels_N, probabilities_N, flags_N, np.asarray(rows.users), user_N, num_users)


class _Part:
    """Some of the rows, and what the bootstrap samples say of them."""

    def __init__(self, rows: _Checked, inside: IntArray) -> None:
        self._inside = inside
        self._labels_n = rows.labels_N[inside]
        self._probabilities_n = rows.probabilities_N[inside]
        self._flags_n = rows.flags_N[inside]
        self._users_n = rows.users_N[inside]
        self._ranked: RankedRows | None = None
        self._samples: list[dict[str, FloatArray]] = []

    def facts(self, name: str, min_users: int) -> dict[str, Any]:
        """Count, and say whether that is enough to be measured."""
        num_rows, churned = self._labels_n.size, int(self._labels_n.sum())
        num_users = int(np.unique(self._users_n).size)
        rarer, kind = min((churned, "churned"), (num_rows - churned, "stayed"))
        reason = None
        if num_users < min_users:
            reason = f"{num_users} users, {min_users} needed"
        elif rarer < MIN_CLASS_ROWS:
            reason = f"{rarer} {kind}, {MIN_CLASS_ROWS} needed"
        return {
            "segment": name,
            "rows": num_rows,
            "users": num_users,
            "churned": churned,
            "too_small": reason,
        }

    def add_samples(self, weights_NS: FloatArray) -> None:
        """Measure under more weightings of all rows."""
        self._samples.append(self._measure(weights_NS[self._inside]))

    def intervals(self, confidence: float, everybody: _Part | None) -> dict[str, Any]:
        """Return {metric: {value, low, high}}, None where undefined."""
        exact, drawn = self._exact(), self._drawn()
        drawn[BIASED_METRIC] = without_excess(exact[BIASED_METRIC], drawn[BIASED_METRIC])
        if everybody is not None:
            exact_all, drawn_all = everybody._exact(), everybody._drawn()
            for name in AGAINST_ALL:
                exact[f"{name}_against_all"] = exact[name] - exact_all[name]
                drawn[f"{name}_against_all"] = drawn[name] - drawn_all[name]
        return {
            name: {
                key: number if math.isfinite(number) else None
                for key, number in percentile_interval(value, drawn[name], confidence)
                ._asdict()
                .items()
            }
            for name, value in exact.items()
        }

    def reliability(self, confidence: float) -> dict[str, Any]:
        """Describe the calibration."""
        return reliability_table(self._labels_n, self._probabilities_n, self._users_n, confidence)

    def _exact(self) -> dict[str, float]:
        measured = self._measure(np.ones((self._labels_n.size, 1)))
        return {name: float(values[0]) for name, values in measured.items()}

    def _drawn(self) -> dict[str, FloatArray]:
        return {
            name: np.concatenate([sample[name] for sample in self._samples])
            for name in SLICE_METRICS
        }

    def _measure(self, weights_nS: FloatArray) -> dict[str, FloatArray]:
        """Return {metric: (S,)}; NaN where undefined."""
        if self._ranked is None:
            self._ranked = rank_rows(self._labels_n, self._probabilities_n)
        found = weighted_metrics(self._ranked, 0.5, weights_nS, _RANKED_METRICS)
        weight_S = weights_nS.sum(axis=0)
        churned_S = self._labels_n @ weights_nS
        flagged_S = self._flags_n @ weights_nS
        hits_S = (self._flags_n * self._labels_n) @ weights_nS
        with np.errstate(divide="ignore", invalid="ignore"):
            found["mean_probability"] = self._probabilities_n @ weights_nS / weight_S
            found["calibration_gap"] = found["mean_probability"] - found["base_rate"]
            found["flag_rate"] = flagged_S / weight_S
            found["recall"] = hits_S / churned_S
            found["precision"] = hits_S / flagged_S
        return found
