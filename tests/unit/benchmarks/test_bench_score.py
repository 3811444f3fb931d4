"""The scoring benchmark from end to end on a tiny model, without the optional runtimes."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

import bench_score
from scoring_ways import onnx_ways
from scoring_ways.onnx_graphs import PrunedBert
from scoring_ways.table import Way, sigmoid
from scoring_ways.torch_ways import in_order, reference_logits, sorted_batches, word_tokenizer
from scoring_ways.workload import ENCODERS, EncoderShape, Workload

SHAPE = EncoderShape(name="small", num_layers=2, hidden_size=16, num_heads=2, num_words=40)


@pytest.fixture
def small_encoder(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(ENCODERS, "small", SHAPE)
    monkeypatch.setattr(onnx_ways, "missing_packages", lambda: ["onnxruntime"])
    threads, disabled = torch.get_num_threads(), logging.root.manager.disable
    yield
    torch.set_num_threads(threads)
    logging.disable(disabled)


def test_texts_become_the_same_tokens_by_both_tokenizers() -> None:
    workload = Workload(SHAPE, 30)
    tokens = workload.draw(3)
    texts = workload.texts(tokens)
    assert np.concatenate(word_tokenizer(workload)(texts)["input_ids"]).tolist() == (
        tokens.ids.tolist()
    )
    ours = workload.tokenizer.encode(pa.array(texts), pa.array([""] * len(texts)))
    assert ours.ids.tolist() == tokens.ids.tolist()


def test_draws_differ_in_words_alone_and_probabilities_differ_between_texts() -> None:
    workload = Workload(SHAPE, 100)
    first, second = workload.draw(0), workload.draw(1)
    assert first.lengths.tolist() == second.lengths.tolist()
    assert first.ids.tolist() != second.ids.tolist()
    assert 0.05 < sigmoid(reference_logits(workload, first)).std() < 0.4


@pytest.mark.usefixtures("small_encoder")
def test_every_torch_way_scores_as_the_reference(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "report.json"
    flags = ["--encoders", "small", "--rows", "40", "--repetitions", "1", "--users", "0"]
    code = bench_score.main([*flags, "--json", str(file)])
    printed = capsys.readouterr().out
    report = json.loads(printed.splitlines()[-1])
    assert report == json.loads(file.read_text())
    rows = report["rows"]
    measured = [row for row in rows if row["rows_per_cpu_second"] is not None]
    changes = {row["way"]: row["max_probability_change"] for row in measured}
    fp32 = [row["way"] for row in measured if row["precision"] == "fp32"]
    assert len(fp32) == 4
    assert max(changes[way] for way in fp32) < 1e-4
    assert max(changes.values()) < 0.5
    absent = [row for row in rows if row not in measured and not row["is_ours"]]
    assert len(absent) == 7
    assert all(row["note"] == f"onnxruntime {onnx_ways.INSTALL}" for row in absent)
    places = report["first"][SHAPE.label]
    assert code == int(not all(place["is_first"] for place in places.values()))
    assert "pip install -e '.[bench]'" in printed


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--encoders", "huge"], "allowed: tiny, mini, minilm, base"),
        (["--rows", "0"], "allowed: 1 to 4000"),
        (["--repetitions", "0"], "allowed: 1 or more"),
    ],
    ids=["encoder", "rows", "repetitions"],
)
def test_a_wrong_option_is_an_error(
    flags: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        bench_score.parse(flags)
    assert caught.value.code == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("script", "is_fast", "said"),
    [
        ("print('table'); print('[{\"users\": 7, \"ratio\": 1.3}]')", True, "| 7 | 1.3 |"),
        ('print(\'[{"users": 7, "ratio": 1.31}]\'); exit(1)', False, "| 7 | 1.31 |"),
        ("print('table'); raise SystemExit('no room')", False, "exit code 1 and no table"),
        ("", False, "its last words: nothing"),
    ],
    ids=["at the bound", "beyond the bound", "failed", "silent"],
)
def test_whole_path_is_what_its_own_benchmark_prints_last(
    script: str,
    is_fast: bool,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "bench_path.py"
    file.write_text(script)
    monkeypatch.setattr(bench_score, "PATH_BENCHMARK", file)
    path = bench_score.whole_path(7)
    bench_score.print_path(path)
    assert path["is_fast"] is is_fast
    assert said in capsys.readouterr().out


@pytest.mark.parametrize("is_fused", [False, True], ids=["apart", "fused"])
def test_pruned_graph_gives_the_logits_of_the_whole_one(is_fused: bool) -> None:
    workload = Workload(SHAPE, 20)
    tokens = workload.draw(0)
    pruned = PrunedBert(workload.reference(), is_fused=is_fused)
    order, batches = sorted_batches(tokens, 8)
    with torch.inference_mode():
        logits = [pruned(*(torch.from_numpy(part) for part in batch)).numpy() for batch in batches]
    np.testing.assert_allclose(
        in_order(order, logits), reference_logits(workload, tokens), atol=1e-4
    )


def test_runtimes_score_as_the_reference(tmp_path: Path) -> None:
    for package in ("onnx", "onnxruntime", "openvino"):
        pytest.importorskip(package, reason="the extra `bench` is not installed")
    workload = Workload(SHAPE, 40)
    tokens = workload.draw(0)
    expected = sigmoid(reference_logits(workload, tokens))
    most = {"fp32": 1e-4, "bf16": 0.1, "int8": 0.4}
    for way in onnx_ways.onnx_ways(workload, tmp_path):
        assert isinstance(way, Way), way.name
        change = np.abs(sigmoid(way.run(way.prepare(tokens))) - expected).max()
        assert change < most[way.precision], way.name
