"""``churn-train tune`` from a terminal."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from training_example import TINY_FLAGS, Trained

from tests.cli.conftest import parse

QUICK = [*TINY_FLAGS, "--set", "fit.numeric_epochs=1", "--set", "fit.min_examples=0"]


def test_search_ends_in_a_config_that_trains(
    trained: Trained, invoke: Callable[..., Result]
) -> None:
    Path("space.yaml").write_text("space: {fit.dropout: {choices: [0.1, 0.5]}}", encoding="utf-8")
    search = ["tune", *QUICK, "--sampler", "grid", "--space", "space.yaml"]
    found = parse(invoke(*search, "--trials", 2, "--json", "-q"))
    assert [row["state"] for row in found["trials"]] == ["complete", "complete"]
    assert {row["params"]["fit.dropout"] for row in found["trials"]} == {0.1, 0.5}
    again = invoke(*search, "--trials", 2)
    assert again.exit_code == 0
    assert f"next: churn-train run --config {found['config']}" in again.stdout
    assert "valid loss" in again.stdout
    fitted = invoke("fit", "--config", found["config"], "--json", "-q")
    assert parse(fitted)["snapshot_id"] == trained.outcome.snapshot_id


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--sampler", "magic"], 2, "tpe"),
        (["--sampler", "grid"], 1, "--space"),
        (["nothing"], 1, "nothing"),
    ],
)
def test_mistakes_are_one_clear_line(
    trained: Trained,
    invoke: Callable[..., Result],
    arguments: list[str],
    code: int,
    message: str,
) -> None:
    result = invoke("tune", *QUICK, *arguments)
    assert result.exit_code == code
    assert message in result.stderr
    assert "Traceback" not in result.stderr
