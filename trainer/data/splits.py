"""Out-of-time splits of a snapshot, with the horizon gap that keeps labels apart.

A label's horizon ends at ``cutoff + gap_days + horizon_days``. Every horizon of one split ends
on or before the first cutoff of the next, so that nothing a model is judged on was known when
its training labels closed.

Once everything is chosen, a model is fitted again on every label that was known at the first test
cutoff (``refit``), which is what the test judges, and for scoring on every label that is known at
the score cutoff (``final``): churn moves, and the newest labels are the best teachers.
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from trainer.data.snapshot import IndexArray, Snapshot
from trainer.errors import ConfigError, SplitError

BY_TIME = "by_time"
BY_USER = "by_user"
BoolArray: TypeAlias = npt.NDArray[np.bool_]
Dates: TypeAlias = tuple[datetime.date, ...]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class SplitConfig:
    """Which cutoffs train, validate and test."""

    test_cutoffs: int = 1
    """Newest mature cutoffs held back for the test."""
    valid_cutoffs: int = 3
    """Newest cutoffs before the test, a horizon apart from it; fewer when history is short."""
    max_train_cutoffs: int | None = None
    """Newest training cutoffs to keep; null keeps all."""
    valid_user_fraction: float = 0.2
    """Share of users that validate, or test, when the history is too short to hold back cutoffs."""

    def __post_init__(self) -> None:
        """Check the bounds."""
        for name in ("test_cutoffs", "valid_cutoffs"):
            if getattr(self, name) < 1:
                raise ConfigError(f"splits.{name} is {getattr(self, name)}; allowed: 1 or more")
        if self.max_train_cutoffs is not None and self.max_train_cutoffs < 1:
            raise ConfigError(
                f"splits.max_train_cutoffs is {self.max_train_cutoffs}; "
                "allowed: 1 or more, or null for all"
            )
        if not 0.0 < self.valid_user_fraction < 0.5:
            raise ConfigError(
                f"splits.valid_user_fraction is {self.valid_user_fraction}; "
                "allowed: above 0 and below 0.5"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class CutoffPlan:
    """Cutoffs of each split, oldest first."""

    train: Dates
    valid: Dates
    test: Dates
    valid_mode: str
    """``by_time``, or ``by_user`` when train and valid had to share their cutoffs."""
    test_mode: str = BY_TIME
    """``by_user`` when even the test had to share its cutoffs."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Splits:
    """Row indices of each split into a snapshot, all labelled, ascending."""

    plan: CutoffPlan
    train: IndexArray
    valid: IndexArray
    test: IndexArray
    pretrain: IndexArray
    """Rows, labelled or not, whose text may shape the vocabulary and masked-word training."""
    refit: IndexArray
    """Rows whose labels were known at the first test cutoff: the second fit, judged by the test."""
    final: IndexArray
    """Rows whose labels are known at the score cutoff: the last fit, which scores."""
    facts: Mapping[str, Any]
    """JSON-ready summary: cutoffs, rows, users and base rate per split, mode, seed."""

    @property
    def valid_mode(self) -> str:
        """``by_time`` or ``by_user``."""
        return self.plan.valid_mode

    @property
    def test_mode(self) -> str:
        """``by_time`` or ``by_user``."""
        return self.plan.test_mode


def plan_cutoffs(
    mature: Sequence[datetime.date],
    *,
    gap_days: int,
    horizon_days: int,
    config: SplitConfig,
    score_cutoff: datetime.date | None = None,
) -> CutoffPlan:
    """Distribute the mature cutoffs over the splits.

    Args:
        mature: Cutoffs whose labels are known, in any order.
        gap_days: Days between a cutoff and its horizon.
        horizon_days: Days that a label looks at.
        config: How many cutoffs each split takes.
        score_cutoff: The cutoff to be scored. Only where the history is too short to test out
            of time: labels that were not known then take no part.

    Raises:
        SplitError: No cutoff has a label yet.
    """
    cutoffs = sorted(set(mature))
    reach = datetime.timedelta(days=gap_days + horizon_days)
    if not cutoffs:
        raise SplitError(
            "no cutoff has mature labels: no horizon ends inside the data. Lower "
            f"churn__horizon_days (now {horizon_days}) or churn__gap_days (now {gap_days}), add "
            "earlier dates to churn__training_cutoffs, or load more history; then `dbt build`"
        )
    test = tuple(cutoffs[-config.test_cutoffs :])
    before_test = [cutoff for cutoff in cutoffs if cutoff + reach <= test[0]]
    keep = config.max_train_cutoffs or len(cutoffs)
    if not before_test:
        every = tuple(c for c in cutoffs if score_cutoff is None or c + reach <= score_cutoff)
        every = every[-keep:]
        if not every:
            _raise_too_short(cutoffs, test[0], reach)
        return CutoffPlan(
            train=every, valid=every, test=every, valid_mode=BY_USER, test_mode=BY_USER
        )
    for num_valid in range(min(config.valid_cutoffs, len(before_test)), 0, -1):
        valid = tuple(before_test[-num_valid:])
        train = tuple(cutoff for cutoff in before_test if cutoff + reach <= valid[0])
        if train:
            return CutoffPlan(train=train[-keep:], valid=valid, test=test, valid_mode=BY_TIME)
    shared = tuple(before_test[-keep:])
    return CutoffPlan(train=shared, valid=shared, test=test, valid_mode=BY_USER)


def make_splits(snapshot: Snapshot, config: SplitConfig, *, seed: int) -> Splits:
    """Split a snapshot's labelled rows out of time.

    Args:
        snapshot: The rows.
        config: How many cutoffs each split takes.
        seed: Chooses the validation users when cutoffs must be shared.

    Raises:
        SplitError: No label is known, or a split holds one class only.
    """
    labelled = ~np.isnan(snapshot.labels)
    dates = snapshot.cutoff_dates
    mature = [as_date(value) for value in np.unique(dates[labelled])]
    settings = snapshot.model_settings
    score_cutoff = datetime.date.fromisoformat(snapshot.document["score_cutoff_date"])
    plan = plan_cutoffs(
        mature,
        gap_days=settings.gap_days,
        horizon_days=settings.horizon_days,
        config=config,
        score_cutoff=score_cutoff,
    )
    in_train = labelled & np.isin(dates, _as_array(plan.train))
    in_valid = labelled & np.isin(dates, _as_array(plan.valid))
    in_test = labelled & np.isin(dates, _as_array(plan.test))
    ends = label_ends(snapshot)
    in_refit = labelled & (ends <= _as_array(plan.test)[0])
    in_final = labelled & (ends <= np.datetime64(score_cutoff, "D"))
    if plan.valid_mode == BY_USER:
        draw_N = _user_draws(snapshot, seed)
        is_valid_user = draw_N < config.valid_user_fraction
        is_test_user = draw_N >= 1.0 - config.valid_user_fraction
        in_pretrain = (dates <= _as_array(plan.train)[-1]) & ~is_valid_user
        if plan.test_mode == BY_USER:
            in_test &= is_test_user
            in_refit = in_train & ~is_test_user
            in_valid &= ~is_test_user
            in_train &= ~is_test_user
            in_pretrain &= ~is_test_user
        in_train &= ~is_valid_user
        in_valid &= is_valid_user
    else:
        in_pretrain = dates < _as_array(plan.valid)[0]
    masks = {"train": in_train, "valid": in_valid, "test": in_test}
    last_fits = {
        name: np.flatnonzero(mask & _is_newest(dates, mask, config.max_train_cutoffs))
        for name, mask in {"refit": in_refit, "final": in_final}.items()
    }
    facts = _describe(snapshot, plan, masks, seed, int(in_pretrain.sum()))
    for name in masks:
        _require_both_classes(name, facts["splits"][name])
    facts["fits"] = {name: _describe_rows(snapshot, rows) for name, rows in last_fits.items()}
    return Splits(
        plan=plan,
        train=np.flatnonzero(in_train),
        valid=np.flatnonzero(in_valid),
        test=np.flatnonzero(in_test),
        pretrain=np.flatnonzero(in_pretrain),
        refit=last_fits["refit"],
        final=last_fits["final"],
        facts=facts,
    )


def label_ends(snapshot: Snapshot) -> npt.NDArray[np.datetime64]:
    """Return (N,) datetime64[D]: when the horizon of each row ends and its label is known."""
    settings = snapshot.model_settings
    return snapshot.cutoff_dates + np.timedelta64(settings.gap_days + settings.horizon_days, "D")


def as_date(value: np.datetime64) -> datetime.date:
    """Return a numpy day as a date."""
    date: datetime.date = value.astype("datetime64[D]").item()
    return date


def _as_array(dates: Dates) -> npt.NDArray[np.datetime64]:
    """Return dates as (K,) datetime64[D]."""
    return np.asarray(dates, dtype="datetime64[D]")


def _raise_too_short(
    cutoffs: Sequence[datetime.date], first_test: datetime.date, reach: datetime.timedelta
) -> None:
    """Say how many more days of history training needs."""
    latest_needed = first_test - reach
    missing = (cutoffs[0] - latest_needed).days
    raise SplitError(
        f"no cutoff is left to train on: a training label must end on or before the first test "
        f"cutoff {first_test}, so a cutoff on or before {latest_needed} is needed, and the oldest "
        f"mature one is {cutoffs[0]}, {missing} days too late. Add earlier dates to "
        "churn__training_cutoffs (or lower its every_days), lower churn__horizon_days or "
        "churn__gap_days, or load more history; then run `dbt build` and `churn-train snapshot`"
    )


def _user_draws(snapshot: Snapshot, seed: int) -> npt.NDArray[np.float64]:
    """Return (N,) numbers in [0, 1): the seeded hash of each row's user."""
    encoded = snapshot.table.column("user_id").combine_chunks().dictionary_encode()
    drawn = np.array(
        [
            int.from_bytes(hashlib.sha256(f"{seed}:{user}".encode()).digest()[:6], "big") / 2**48
            for user in encoded.dictionary.to_pylist()
        ],
        dtype=np.float64,
    )
    return np.asarray(drawn[encoded.indices.to_numpy(zero_copy_only=False)])


def _is_newest(
    dates: npt.NDArray[np.datetime64], mask: BoolArray, max_cutoffs: int | None
) -> BoolArray:
    """Return (N,) bool: rows of the newest cutoffs among the masked ones."""
    newest = np.unique(dates[mask])[-(max_cutoffs or len(dates)) :]
    return np.isin(dates, newest)


def _describe(
    snapshot: Snapshot,
    plan: CutoffPlan,
    masks: Mapping[str, BoolArray],
    seed: int,
    num_pretrain_rows: int,
) -> dict[str, Any]:
    """Return the content of ``splits.json``."""
    splits: dict[str, Any] = {}
    for name, mask in masks.items():
        splits[name] = {
            **_describe_rows(snapshot, np.flatnonzero(mask)),
            "cutoffs": [cutoff.isoformat() for cutoff in getattr(plan, name)],
        }
    return {
        "snapshot_id": snapshot.snapshot_id,
        "valid_mode": plan.valid_mode,
        "test_mode": plan.test_mode,
        "seed": seed,
        "pretrain_rows": num_pretrain_rows,
        "splits": splits,
    }


def _describe_rows(snapshot: Snapshot, rows: IndexArray) -> dict[str, Any]:
    """Return cutoffs, counts and base rate of labelled rows."""
    labels = snapshot.labels[rows]
    cutoffs = np.unique(snapshot.cutoff_dates[rows])
    return {
        "cutoffs": [as_date(cutoff).isoformat() for cutoff in cutoffs],
        "rows": len(rows),
        "users": len(set(snapshot.user_ids(rows))),
        "churned_rows": int(labels.sum()),
        "base_rate": float(labels.mean()) if len(rows) else None,
    }


def _require_both_classes(name: str, facts: Mapping[str, Any]) -> None:
    """Refuse a split in which everybody churned or nobody did."""
    if 0 < facts["churned_rows"] < facts["rows"]:
        return
    cutoffs = facts["cutoffs"]
    span = cutoffs[0] if len(cutoffs) == 1 else f"{cutoffs[0]} to {cutoffs[-1]}"
    if not facts["rows"]:
        state = "no labelled row"
    else:
        who = "nobody" if not facts["churned_rows"] else "everybody"
        state = f"{facts['rows']} rows of which {who} churned (base rate {facts['base_rate']:.2f})"
    raise SplitError(
        f"the {name} split (cutoffs {span}) has {state}; both outcomes are needed to learn and to "
        "judge. Change churn__horizon_days or churn__eligibility_days, check "
        "churn__qualifying_event_types, or load more users; then run `dbt build` and "
        "`churn-train snapshot`"
    )
