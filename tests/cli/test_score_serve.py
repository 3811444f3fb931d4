from __future__ import annotations

import json
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from score_example import (
    FEATURES,
    arrow_stream,
    examples,
    json_lines,
    json_rows,
    promoted_bundle,
    start,
)

from churn_udf.bundle_store import open_champion
from churn_udf.scoring import Scorer

STATISTICS = re.compile(
    r"served (?P<rows>[\d,]+) rows, (?P<errors>[\d,]+) errors in [\d.,]+ s \([\d,]+ rows/s\); "
    r"latency p50 (?P<p50>[\d.]+) ms, p95 [\d.]+ ms, p99 (?P<p99>[\d.]+) ms"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    promoted_bundle(tmp_path / "models")
    return tmp_path


def expected(folder: Path, table: pa.Table) -> list[float]:
    names = ["input_hash", "behavior_text", "review_text_recent", *FEATURES]
    rows = table.select(names).combine_chunks().to_batches()[0]
    scores = Scorer.load(open_champion(folder / "models")).score_batch(rows)
    probabilities: list[float] = scores.column("churn_probability").to_pylist()
    return probabilities


class Talk:
    """A conversation with `churn-score serve`; what it says on standard error is gathered."""

    def __init__(self, folder: Path, *arguments: object) -> None:
        self.process = start("serve", "--models-dir", folder / "models", *arguments)
        self.said: list[str] = []
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said.append(line.decode())

    def send(self, content: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(content)
        self.process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        document: dict[str, Any] = json.loads(self.process.stdout.readline())
        return document

    def wait_for(self, text: str) -> str:
        deadline = time.monotonic() + 120
        while not (found := [line for line in self.said if text in line]):
            assert time.monotonic() < deadline, self.said
            assert self.process.poll() is None, self.said
            time.sleep(0.02)
        return found[0]

    def end(self) -> list[str]:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=60)
        self._listener.join(timeout=60)
        return self.said


@pytest.fixture
def talk(folder: Path) -> Iterator[Talk]:
    conversation = Talk(folder)
    yield conversation
    conversation.process.kill()
    conversation.process.wait()
    conversation._listener.join(timeout=60)
    for stream in (
        conversation.process.stdin,
        conversation.process.stdout,
        conversation.process.stderr,
    ):
        assert stream is not None
        stream.close()


def test_good_and_bad_lines_are_answered_in_order_and_counted(folder: Path) -> None:
    table = examples(600)
    rows: list[Any] = json_rows(table)
    rows[1]["features"] = {name: rows[1].pop(name) for name in FEATURES}
    rows[2] = {**rows[2], "behavior_text": None}
    rows[3] = {**rows[3], "order_count": "4"}
    rows[4] = {name: value for name, value in rows[4].items() if name != "amount_sum"}
    rows[5] = [1, 2]
    rows[6] = {**rows[6], "recency_days": float("inf")}
    del rows[7]["review_text_recent"]
    with start("serve", "--models-dir", folder / "models", "--max-batch", 64) as process:
        content = json_lines(rows[:300]) + b"{half\n\n" + json_lines(rows[300:])
        output, errors = process.communicate(content.rstrip(b"\n"), timeout=120)
    assert process.returncode == 0, errors.decode()
    answers = [json.loads(line) for line in output.splitlines()]
    assert len(answers) == 601
    half = answers.pop(300)
    assert (half["id"], half["line"], half["reason"]) == (None, 301, "not_a_row")
    assert [answer["id"] for answer in answers] == [*range(5), None, *range(6, 600)]
    reasons = {number: answers[number]["reason"] for number in (2, 3, 4, 5, 6)}
    assert reasons == {
        **{2: "null_text", 3: "invalid_value", 4: "invalid_value"},
        **{5: "not_a_row", 6: "infinite_feature"},
    }
    assert "amount_sum" in answers[4]["error"]
    assert all("churn_probability" not in answers[number] for number in reasons)
    scored = [answer for number, answer in enumerate(answers) if number not in reasons]
    probabilities = [
        value for number, value in enumerate(expected(folder, table)) if number not in reasons
    ]
    skipped = 7 - len([number for number in reasons if number < 7])  # its review was taken away
    found = [answer["churn_probability"] for answer in scored]
    np.testing.assert_allclose(
        np.delete(found, skipped), np.delete(probabilities, skipped), atol=1e-5
    )
    assert set(scored[0]) == {
        *("id", "churn_probability", "risk_tier", "is_flagged", "top_reason", "bundle_id"),
    }
    found_statistics = STATISTICS.search(errors.decode())
    assert found_statistics is not None, errors.decode()
    assert (found_statistics["rows"], found_statistics["errors"]) == ("601", "6")
    assert 0 < float(found_statistics["p50"]) <= float(found_statistics["p99"])


def test_sigterm_ends_it_when_all_that_arrived_is_answered(talk: Talk) -> None:
    talk.wait_for("ready: ")
    content = json_lines(json_rows(examples(150)))
    assert len(content) < 1 << 16, "what a pipe holds"
    talk.send(content + b'{"id": "unfinished')
    talk.process.send_signal(signal.SIGTERM)
    assert [talk.answer()["id"] for _ in range(150)] == list(range(150))
    assert talk.process.wait(timeout=60) == 0
    assert "served 150 rows, 0 errors" in talk.end()[-1]


def test_rows_are_answered_at_once_and_a_new_champion_takes_over(folder: Path, talk: Talk) -> None:
    row = json_lines(json_rows(examples(1)))
    first = open_champion(folder / "models")
    talk.send(row)
    assert talk.answer()["bundle_id"] == first.bundle_id
    second = promoted_bundle(folder / "models", seed=1)
    line = talk.wait_for("replaces")
    assert line == f"champion {second.bundle_id} replaces {first.bundle_id}\n"
    talk.send(row)
    assert talk.answer()["bundle_id"] == second.bundle_id


def test_arrow_streams_in_and_out(folder: Path) -> None:
    table = examples(300)
    texts = table["behavior_text"].to_pylist()
    texts[7] = None
    index = table.schema.get_field_index("behavior_text")
    table = table.set_column(index, "behavior_text", pa.array(texts))
    arguments = ["--format", "arrow", "--max-batch", 64]
    with start("serve", "--models-dir", folder / "models", *arguments) as process:
        output, errors = process.communicate(arrow_stream(table), timeout=120)
    assert process.returncode == 0, errors.decode()
    answers = pa.ipc.open_stream(output).read_all()
    assert answers.schema.names == [
        *("user_id", "cutoff_date", "input_hash", "churn_probability", "risk_tier", "is_flagged"),
        *("top_reason", "bundle_id", "reason", "error"),
    ]
    assert answers["user_id"].to_pylist() == table["user_id"].to_pylist()
    assert answers.slice(7, 1).select(["churn_probability", "reason"]).to_pylist() == [
        {"churn_probability": None, "reason": "null_text"}
    ]
    rest = [row for row in range(300) if row != 7]
    found = answers["churn_probability"].take(rest)
    np.testing.assert_allclose(found, expected(folder, table.take(rest)), atol=1e-5)
    statistics = STATISTICS.search(errors.decode())
    assert statistics is not None
    assert statistics["rows"] == "300"


def test_a_reader_that_leaves_ends_it_quietly(folder: Path) -> None:
    process: subprocess.Popen[bytes]
    with start("serve", "--models-dir", folder / "models", "--quiet") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        process.stdin.write(json_lines(json_rows(examples(5))))
        process.stdin.flush()
        assert process.stderr.read() == b""  # and it ends although its input stays open
        assert process.wait(timeout=60) == 1
