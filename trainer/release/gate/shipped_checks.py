"""Checks of the bundle itself: its scores of the newest matured cutoff against what happened.

What ships may have learned these labels (``fit.refit: all``), so it can look too good here, never
too bad: a good number says little, a bad one damns.
"""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from trainer.config import GateConfig, TrainConfig
from trainer.evaluate import Interval, bootstrap_intervals, paired_difference
from trainer.evaluate.arrays import group_indices
from trainer.evaluate.bootstrap import percentile_interval, resampled_weights
from trainer.release.gate.checks import GateCheck, at_least, at_most, number
from trainer.release.gate.metric_checks import calibration_error_check, chance_error

FloatArray: TypeAlias = npt.NDArray[np.float64]
Users: TypeAlias = npt.NDArray[Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcomes:
    """Who was to be scored at a cutoff, and what happened."""

    cutoff_date: datetime.date
    users: Users
    """(N,) user ids."""
    labels: FloatArray
    """(N,) 1 churned, 0 stayed."""
    recency: FloatArray | None = None
    """(N,) days since the last activity, NaN where unknown; None where there is no such feature."""
    source: str = "the warehouse"
    """Where they were read."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampling:
    """How intervals are made."""

    num_samples: int
    seed: int
    confidence: float

    @classmethod
    def of(cls, config: TrainConfig) -> Sampling:
        """Return what the settings ask for."""
        return cls(
            num_samples=config.evaluate.num_bootstrap,
            seed=config.fit.seed,
            confidence=config.evaluate.confidence,
        )

    def arguments(self, users: Users) -> dict[str, Any]:
        """Return the arguments of the bootstrap over these users."""
        return {**dataclasses.asdict(self), "groups": users}


def rows_check(outcomes: Outcomes, gate: GateConfig) -> GateCheck:
    """Check that there is enough to judge by."""
    churned = int(outcomes.labels.sum())
    stayed = len(outcomes.labels) - churned
    return at_least(
        "labelled_rows",
        float(min(churned, stayed)),
        gate.min_class_rows,
        f"{churned:,} churned and {stayed:,} stayed at the newest matured cutoff "
        f"{outcomes.cutoff_date} ({outcomes.source}), the fewer are",
        {"cutoff_date": outcomes.cutoff_date.isoformat(), "churned": churned, "stayed": stayed},
    )


def shipped_checks(
    outcomes: Outcomes,
    probabilities: FloatArray,
    metrics: Mapping[str, Any],
    gate: GateConfig,
    sampling: Sampling,
) -> list[GateCheck]:
    """Judge the bundle's own scores.

    Args:
        outcomes: N rows.
        probabilities: (N,) of the bundle.
        metrics: Its ``metrics.json``, for what it claims.
        gate: The bounds.
        sampling: How intervals are made.
    """
    labels, arguments = outcomes.labels, sampling.arguments(outcomes.users)
    table = bootstrap_intervals(labels, {"shipped": probabilities}, {"shipped": 0.5}, **arguments)[
        "shipped"
    ]
    auroc = table["auroc"]
    where = f"of the bundle at {outcomes.cutoff_date}"
    checks = [
        at_least(
            "shipped_auroc",
            auroc.high,
            gate.min_auroc,
            f"AUROC {auroc.value:.3f} {where}, at best",
            {"auroc": auroc._asdict(), "rows": len(labels)},
        )
    ]
    constant = np.full(len(labels), labels.mean())
    gain = paired_difference(labels, probabilities, constant, **arguments)["brier_score"]
    checks.append(
        at_least(
            "shipped_base_rate",
            gain.high,
            -gate.max_brier_excess,
            f"Brier score {table['brier_score'].value:.3f} {where} against the churn rate for "
            "everyone, a gain of at best",
            {"difference": gain._asdict()},
        )
    )
    if outcomes.recency is not None:
        rule = _ranks(outcomes.recency)
        gain = paired_difference(labels, probabilities, rule, **arguments)["auroc"]
        checks.append(
            at_least(
                "shipped_recency",
                gain.high,
                -gate.max_recency_deficit,
                f"AUROC {where} against the recency rule, a gain of at best",
                {"difference": gain._asdict()},
            )
        )
    claimed = _claimed_auroc(metrics)
    checks.append(
        at_least(
            "shipped_claim",
            auroc.high - claimed,
            -gate.max_claim_deficit,
            f"AUROC {auroc.value:.3f} {where} against {claimed:.3f} that metrics.json says of the "
            "test, a gain of at best",
            {"auroc": auroc._asdict(), "claimed": claimed},
        )
    )
    gap = calibration_gap(outcomes, probabilities, sampling)
    checks.append(
        at_most(
            "shipped_calibration_gap",
            max(gap.low, -gap.high, 0.0),
            gate.max_calibration_gap,
            f"mean probability minus churn rate {gap.value:+.3f} {where}, off by at least",
            {"gap": gap._asdict()},
        )
    )
    error = table["expected_calibration_error"].value
    chance = chance_error(float(np.mean(probabilities * (1.0 - probabilities))), len(labels))
    return [*checks, calibration_error_check("shipped", error, chance, gate)]


def calibration_gap(outcomes: Outcomes, probabilities: FloatArray, sampling: Sampling) -> Interval:
    """Return mean probability minus churn rate, with its interval from resampling users."""
    miss = probabilities - outcomes.labels
    index_N, num_users = group_indices(outcomes.users, len(miss))
    drawn = [
        (miss @ weights_NS) / weights_NS.sum(axis=0)
        for weights_NS in resampled_weights(index_N, num_users, sampling.num_samples, sampling.seed)
    ]
    return percentile_interval(float(miss.mean()), np.concatenate(drawn), sampling.confidence)


def champion_checks(
    outcomes: Outcomes,
    mine: FloatArray,
    theirs: FloatArray,
    gate: GateConfig,
    sampling: Sampling,
    detail: Mapping[str, Any],
) -> list[GateCheck]:
    """Compare the candidate with the champion on the same rows, by a paired bootstrap.

    Args:
        outcomes: N rows.
        mine: (N,) probabilities of the candidate.
        theirs: (N,) probabilities of the champion.
        gate: The bounds.
        sampling: How intervals are made.
        detail: ``champion``, ``footing`` and ``how``, for the message and the log.
    """
    found = paired_difference(outcomes.labels, mine, theirs, **sampling.arguments(outcomes.users))
    return [
        at_least(
            f"champion_{metric}",
            found[metric].high,
            -bound,
            f"{title} against champion {detail['champion']} at {outcomes.cutoff_date} "
            f"({detail['how']}) {found[metric].value:+.4f}, a gain of at best",
            {
                **detail,
                "cutoff_date": outcomes.cutoff_date.isoformat(),
                "rows": len(mine),
                "difference": found[metric]._asdict(),
            },
        )
        for metric, title, bound in (
            ("auroc", "AUROC", gate.max_champion_deficit),
            ("log_loss", "log loss", gate.max_champion_log_loss_excess),
        )
    ]


def _ranks(recency: FloatArray) -> FloatArray:
    """Return (N,) in [0, 1] that rank as the recency rule does: longest away first."""
    filled = np.where(np.isnan(recency), np.inf, recency)
    order = np.unique(filled, return_inverse=True)[1].reshape(-1)
    return np.asarray(order / max(int(order.max(initial=0)), 1), dtype=np.float64)


def _claimed_auroc(metrics: Mapping[str, Any]) -> float:
    """Return the test AUROC that ``metrics.json`` states, NaN if it states none."""
    table: Any = metrics
    for name in ("test", str(metrics.get("model")), "auroc", "value"):
        table = table.get(name) if isinstance(table, Mapping) else None
    return number(table)
