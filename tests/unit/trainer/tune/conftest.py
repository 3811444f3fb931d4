"""Data and a training for searches."""

from __future__ import annotations

import pytest
from tune_example import FakeFit, use_fake

from trainer.data.snapshot import Snapshot
from trainer.data.synthetic import synthetic_snapshot


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    return synthetic_snapshot(tmp_path_factory.mktemp("snapshots"), num_users=60, seed=1)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeFit:
    return use_fake(monkeypatch)
