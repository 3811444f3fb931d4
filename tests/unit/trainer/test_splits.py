from __future__ import annotations

import datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.data.splits import BY_TIME, BY_USER, SplitConfig, make_splits, plan_cutoffs
from trainer.data.synthetic import synthetic_snapshot
from trainer.errors import SplitError

DAY = datetime.timedelta(days=1)
START = datetime.date(2024, 1, 1)


def dates(*days: int) -> list[datetime.date]:
    return [START + DAY * day for day in days]


@given(
    days=st.sets(st.integers(0, 400), min_size=1, max_size=40),
    gap=st.integers(0, 20),
    horizon=st.integers(1, 60),
    num_test=st.integers(1, 4),
    num_valid=st.integers(1, 5),
    num_train=st.one_of(st.none(), st.integers(1, 5)),
)
def test_no_label_horizon_reaches_into_the_next_split(
    days: set[int], gap: int, horizon: int, num_test: int, num_valid: int, num_train: int | None
) -> None:
    config = SplitConfig(
        test_cutoffs=num_test, valid_cutoffs=num_valid, max_train_cutoffs=num_train
    )
    mature = dates(*days)
    plan = plan_cutoffs(mature, gap_days=gap, horizon_days=horizon, config=config)
    reach = DAY * (gap + horizon)
    if plan.test_mode == BY_USER:
        oldest_test = sorted(mature)[-num_test:][0]
        assert all(cutoff + reach > oldest_test for cutoff in mature)
        assert plan.train == plan.valid == plan.test == tuple(sorted(mature))[-(num_train or 999) :]
        return
    assert plan.test == tuple(sorted(mature))[-num_test:]
    assert plan.train
    assert plan.valid
    assert set(plan.train + plan.valid + plan.test) <= set(mature)
    assert all(cutoff + reach <= plan.test[0] for cutoff in plan.train + plan.valid)
    if plan.valid_mode == BY_TIME:
        assert all(cutoff + reach <= plan.valid[0] for cutoff in plan.train)
        assert len(plan.valid) <= num_valid
    else:
        assert plan.train == plan.valid
    if num_train is not None:
        assert len(plan.train) <= num_train


@pytest.mark.parametrize(
    ("last_valid", "mode"),
    [
        pytest.param(30, BY_TIME, id="one-day-before-bound"),
        pytest.param(29, BY_TIME, id="at-bound"),
        pytest.param(28, BY_USER, id="one-day-short"),
    ],
)
def test_train_label_may_end_exactly_when_validation_begins(last_valid: int, mode: str) -> None:
    mature = dates(0, last_valid, 100)
    config = SplitConfig(valid_cutoffs=1)
    plan = plan_cutoffs(mature, gap_days=1, horizon_days=28, config=config)
    assert plan.valid_mode == mode


def test_valid_cutoffs_shrink_before_training_runs_dry() -> None:
    plan = plan_cutoffs(
        dates(0, 10, 20, 30, 40), gap_days=0, horizon_days=15, config=SplitConfig(valid_cutoffs=3)
    )
    assert plan.valid_mode == BY_TIME
    assert (plan.train, plan.valid) == (tuple(dates(0)), tuple(dates(20)))


def test_too_short_history_says_how_much_is_missing() -> None:
    with pytest.raises(SplitError, match=r"2023-12-16.*16 days too late.*churn__horizon_days"):
        plan_cutoffs(
            dates(0, 14),
            gap_days=0,
            horizon_days=30,
            config=SplitConfig(),
            score_cutoff=dates(14)[0],
        )


def test_shortest_history_tests_on_other_users(tmp_path: Path) -> None:
    snapshot = synthetic_snapshot(tmp_path, num_users=300, num_cutoffs=3)
    splits = make_splits(snapshot, SplitConfig(), seed=1)
    assert splits.test_mode == splits.valid_mode == BY_USER
    users = [set(snapshot.user_ids(rows)) for rows in (splits.train, splits.valid, splits.test)]
    assert all(users)
    assert not users[0] & users[1]
    assert not (users[0] | users[1]) & users[2]
    assert not set(snapshot.user_ids(splits.pretrain)) & users[2]
    assert set(snapshot.user_ids(splits.refit)) == users[0] | users[1]
    assert set(splits.final) >= set(splits.refit)


def test_later_fits_know_no_label_too_early(tmp_path: Path) -> None:
    whole = synthetic_snapshot(tmp_path, num_users=60, num_cutoffs=20)
    reach = whole.model_settings.gap_days + whole.model_settings.horizon_days
    for score_cutoff in np.unique(whole.cutoff_dates)[-9:].tolist():
        snapshot = whole.until(score_cutoff)
        splits = make_splits(snapshot, SplitConfig(), seed=0)
        ends = snapshot.cutoff_dates + np.timedelta64(reach, "D")
        assert snapshot.cutoff_dates.max() == np.datetime64(score_cutoff)
        assert ends[splits.final].max() <= np.datetime64(score_cutoff)
        assert set(splits.refit) <= set(splits.final)
        if splits.test_mode == BY_TIME:
            assert ends[splits.refit].max() <= np.datetime64(splits.plan.test[0])
            assert set(splits.train) | set(splits.valid) <= set(splits.refit)
            assert not set(splits.test) & set(splits.refit)
            known = ends <= np.datetime64(splits.plan.test[0])
            assert set(splits.refit) == set(np.flatnonzero(known & ~np.isnan(snapshot.labels)))


def test_no_mature_cutoff_names_the_vars() -> None:
    with pytest.raises(SplitError, match=r"churn__horizon_days \(now 30\)"):
        plan_cutoffs([], gap_days=0, horizon_days=30, config=SplitConfig())


def test_rows_follow_the_plan_and_are_labelled(tmp_path: Path) -> None:
    snapshot = synthetic_snapshot(tmp_path, num_users=50)
    splits = make_splits(snapshot, SplitConfig(), seed=0)
    assert splits.valid_mode == BY_TIME
    parts = [splits.train, splits.valid, splits.test]
    joined = np.concatenate(parts)
    assert len(np.unique(joined)) == len(joined)
    assert not np.isnan(snapshot.labels[joined]).any()
    for rows, cutoffs in zip(
        parts, (splits.plan.train, splits.plan.valid, splits.plan.test), strict=True
    ):
        assert set(snapshot.cutoff_dates[rows].tolist()) == set(cutoffs)
    assert snapshot.cutoff_dates[splits.pretrain].max() < np.datetime64(splits.plan.valid[0])
    assert set(splits.train) < set(splits.pretrain)


def test_short_history_validates_on_other_users(tmp_path: Path) -> None:
    snapshot = synthetic_snapshot(tmp_path, num_users=200, num_cutoffs=5, days_between_cutoffs=28)
    splits = make_splits(snapshot, SplitConfig(test_cutoffs=3), seed=1)
    assert splits.valid_mode == BY_USER
    train_users = set(snapshot.user_ids(splits.train))
    valid_users = set(snapshot.user_ids(splits.valid))
    assert train_users
    assert not train_users & valid_users
    assert 0.1 < len(valid_users) / 200 < 0.3
    assert not set(snapshot.user_ids(splits.pretrain)) & valid_users
    assert snapshot.cutoff_dates[splits.pretrain].max() <= np.datetime64(splits.plan.train[-1])
    other = make_splits(snapshot, SplitConfig(test_cutoffs=3), seed=2)
    assert set(snapshot.user_ids(other.valid)) != valid_users


@pytest.mark.parametrize(("rate", "who"), [(0.0, "nobody"), (1.0, "everybody")])
def test_one_outcome_alone_is_refused_by_name(tmp_path: Path, rate: float, who: str) -> None:
    snapshot = synthetic_snapshot(tmp_path, num_users=10, churn_rate=rate)
    with pytest.raises(SplitError, match=rf"train split \(cutoffs .*{who} churned.*base rate"):
        make_splits(snapshot, SplitConfig(), seed=0)


def test_one_user_is_refused(tmp_path: Path) -> None:
    snapshot = synthetic_snapshot(tmp_path, num_users=1)
    with pytest.raises(SplitError, match="both outcomes are needed"):
        make_splits(snapshot, SplitConfig(), seed=0)


def test_facts_add_up(tmp_path: Path) -> None:
    snapshot = synthetic_snapshot(tmp_path, num_users=30)
    splits = make_splits(snapshot, SplitConfig(), seed=0)
    for name, facts in splits.facts["splits"].items():
        rows = getattr(splits, name)
        assert facts["rows"] == len(rows)
        assert facts["users"] == 30
        assert facts["base_rate"] == pytest.approx(snapshot.labels[rows].mean())
