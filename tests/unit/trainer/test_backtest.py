"""Backtest: nothing from the future, models age, what is done is not repeated."""

from __future__ import annotations

import dataclasses
import datetime
from pathlib import Path

import numpy as np
import pytest
from training_example import quiet_workspace, tiny_config

from trainer import backtest as module
from trainer.backtest import BacktestConfig, ageing, backtest
from trainer.cli.tables import ageing_table, backtest_table
from trainer.data.snapshot import Snapshot
from trainer.data.synthetic import synthetic_snapshot
from trainer.errors import ConfigError, SnapshotNotFoundError, SplitError

FAST = {"fit.modality": "numeric", "fit.numeric_epochs": 4}


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    return synthetic_snapshot(tmp_path_factory.mktemp("snapshots"), num_users=150, num_cutoffs=20)


def config():
    return tiny_config(**{name.replace(".", "__"): value for name, value in FAST.items()})


def test_until_is_the_past(snapshot: Snapshot) -> None:
    cutoffs = np.unique(snapshot.cutoff_dates)
    date = cutoffs[10].astype(object)
    past = snapshot.until(date)
    assert past.cutoff_dates.max() == cutoffs[10]
    assert past.num_rows == int((snapshot.cutoff_dates <= cutoffs[10]).sum())
    assert past.document["score_cutoff_date"] == date.isoformat()
    assert past.snapshot_id != snapshot.snapshot_id
    assert past.snapshot_id == snapshot.until(date).snapshot_id
    with pytest.raises(SnapshotNotFoundError, match="1999-01-01"):
        snapshot.until(datetime.date(1999, 1, 1))


def test_every_pair_of_training_and_test(snapshot: Snapshot, tmp_path: Path) -> None:
    workspace = quiet_workspace(tmp_path)
    plan = BacktestConfig(num_cutoffs=3, every=1, retrain_every=2)
    folder, document = backtest(snapshot, config(), plan, workspace)
    assert (folder / "backtest.json").is_file()
    dates = [one["cutoff"] for one in document["cutoffs"]]
    assert dates == sorted(dates)
    assert [one["is_trained"] for one in document["cutoffs"]] == [True, False, True]
    pairs = [(one["trained_at"], one["tested_at"]) for one in document["ages"]]
    assert pairs == [
        (dates[0], dates[0]),
        (dates[0], dates[1]),
        (dates[0], dates[2]),
        (dates[2], dates[2]),
    ]
    last = document["cutoffs"][-1]
    assert last["in_charge"]["trained_at"] == dates[2]
    assert last["metrics"]["bert"]["auroc"]["value"] == pytest.approx(
        document["ages"][-1]["metrics"]["auroc"]
    )
    older = ageing(document)
    assert [one["pairs"] for one in older] == [1]
    shown = backtest_table(document)
    assert all(date in shown for date in dates)
    assert "AUROC lost" in ageing_table(older)


def test_no_label_after_the_cutoff_teaches(snapshot: Snapshot, tmp_path: Path) -> None:
    plan = BacktestConfig(num_cutoffs=1, every=1)
    _, document = backtest(snapshot, config(), plan, quiet_workspace(tmp_path / "a"))
    date = np.datetime64(document["cutoffs"][0]["cutoff"])
    reach = snapshot.model_settings.gap_days + snapshot.model_settings.horizon_days
    later = snapshot.cutoff_dates + np.timedelta64(reach, "D") > date
    labels = snapshot.labels.copy()
    labels[later] = 1.0 - labels[later]
    turned = dataclasses.replace(snapshot)
    turned.__dict__["labels"] = labels  # the cached property
    original = Snapshot.until

    def until(self: Snapshot, cutoff: datetime.date) -> Snapshot:
        past = original(self, cutoff)
        past.__dict__["labels"] = labels[snapshot.cutoff_dates <= np.datetime64(cutoff)]
        return past

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Snapshot, "until", until)
        _, other = backtest(turned, config(), plan, quiet_workspace(tmp_path / "b"))
    found, flipped = document["ages"][0], other["ages"][0]
    assert flipped["mean_probability"] == found["mean_probability"]
    assert flipped["metrics"]["auroc"] == pytest.approx(1.0 - found["metrics"]["auroc"])


def test_what_is_done_is_not_repeated(
    snapshot: Snapshot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = quiet_workspace(tmp_path)
    plan = BacktestConfig(num_cutoffs=2, every=2)
    first = backtest(snapshot, config(), plan, workspace)

    def must_not_run(*_: object, **__: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(module, "evaluate_step", must_not_run)
    monkeypatch.setattr("trainer.fit.loop.fit_model", must_not_run)
    assert backtest(snapshot, config(), plan, workspace) == first


def test_dates_are_checked(snapshot: Snapshot, tmp_path: Path) -> None:
    plan = BacktestConfig(dates=(datetime.date(1999, 1, 1),))
    with pytest.raises(ConfigError, match=r"--dates names 1999-01-01; allowed: cutoffs"):
        backtest(snapshot, config(), plan, quiet_workspace(tmp_path))
    with pytest.raises(ConfigError, match=r"--every is 0; allowed: 1 or more"):
        BacktestConfig(every=0)


def test_short_history_says_so(tmp_path: Path) -> None:
    short = synthetic_snapshot(tmp_path / "snapshots", num_users=30, num_cutoffs=3)
    with pytest.raises(SplitError, match="two horizons"):
        backtest(short, config(), BacktestConfig(), quiet_workspace(tmp_path))
