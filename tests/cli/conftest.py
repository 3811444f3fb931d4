from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from training_example import Trained, trained_copy

from trainer.cli import main


@pytest.fixture
def invoke(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Return a function that runs `churn-train` in this process."""
    for name in ("CHURN_MODELS_DIR", "CHURN_TRAIN_RUNS_DIR", "CHURN_TRAIN_SNAPSHOTS_DIR"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments: object, **options: Any) -> Result:
        return CliRunner().invoke(main, [str(item) for item in arguments], **options)

    return run


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Trained:
    """A finished workspace with the default folder names, which is also the current folder."""
    copy = trained_copy(tmp_path)
    monkeypatch.chdir(tmp_path)
    return copy


def parse(result: Result) -> dict[str, Any]:
    """Return the JSON object that a command printed, which must be all it printed."""
    assert result.exit_code == 0, result.output
    document: dict[str, Any] = json.loads(result.stdout)
    return document
