"""``learning-curve`` and ``label-candidates`` from the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from cli.conftest import parse
from click.testing import Result
from training_example import TINY_FLAGS, Trained

Invoke = Callable[..., Result]
CURVE = ["learning-curve", "--sizes", "30,90", "--seeds", "2", "--models", "logistic,plain"]


def test_learning_curve_prints_tables_and_goes_on_where_it_was(
    trained: Trained, invoke: Invoke
) -> None:
    first = parse(invoke(*CURVE, *TINY_FLAGS, "--seeds", "1", "--json", "--quiet"))
    assert len(first["points"]) == 4
    assert first["split"] == "valid"
    result = invoke(*CURVE, *TINY_FLAGS)
    assert result.exit_code == 0, result.output
    assert result.stderr.count("AUROC") == 4  # the second seed alone
    for word in ("AUROC on valid", "Log loss on valid", "labels", "logistic", "plain", "±"):
        assert word in result.stdout
    page = Path(result.stdout.rsplit("chart: ", 1)[1].strip())
    assert page == Path(first["chart"])
    assert "<svg" in page.read_text()
    again = invoke(*CURVE, *TINY_FLAGS)
    assert "AUROC" not in again.stderr
    assert again.stdout == result.stdout


def test_learning_curve_refuses_what_it_cannot_read(trained: Trained, invoke: Invoke) -> None:
    wrong = invoke("learning-curve", "--sizes", "100,many")
    assert wrong.exit_code == 2
    assert "whole numbers such as 100,300" in wrong.output
    unknown = invoke("learning-curve", "--models", "oracle")
    assert unknown.exit_code == 1
    assert "allowed: one or more of pretrained, plain" in unknown.stderr


def test_label_candidates_are_written_and_repeat(trained: Trained, invoke: Invoke) -> None:
    document = parse(invoke("label-candidates", "--count", "7", "--out", "c.csv", "--json"))
    assert document["run_id"] == trained.outcome.run_id
    text = Path("c.csv").read_text()
    assert len(text.splitlines()) == 8
    assert [row["rank"] for row in document["candidates"]] == list(range(1, 8))
    shown = invoke("label-candidates", document["run_id"], "--count", "7", "--out", "c.csv")
    assert shown.exit_code == 0
    assert document["candidates"][0]["user_id"] in shown.stdout
    assert Path("c.csv").read_text() == text
    refused = invoke("label-candidates", "--out", "c.txt")
    assert refused.exit_code == 1
    assert ".csv or .parquet" in refused.stderr
