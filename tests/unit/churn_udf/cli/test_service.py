from __future__ import annotations

import io
import json
import os
import threading
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from champion import newest_entry
from factories import model_settings, tiny_bundle
from score_example import (
    FEATURES,
    arrow_stream,
    examples,
    json_lines,
    json_rows,
    promoted_bundle,
)

from churn_udf.bundle_store import open_champion, set_champion
from churn_udf.cli.arrivals import Arrivals
from churn_udf.cli.doors import MAX_LINE_BYTES, ArrowDoor, Door, JsonDoor
from churn_udf.cli.service import CurrentScorer, Service, warmed
from churn_udf.errors import InputError
from churn_udf.scoring import Scorer


@pytest.fixture
def models_dir(tmp_path: Path) -> Path:
    promoted_bundle(tmp_path)
    return tmp_path


@pytest.fixture
def scorer(models_dir: Path) -> Scorer:
    return Scorer.load(open_champion(models_dir))


@pytest.fixture
def logged() -> list[str]:
    return []


def make_service(scorer: Scorer, door: Door, log: list[str], **options: Any) -> Service:
    current = CurrentScorer(scorer, None, Scorer.load, log.append)
    settings = {"max_rows": 8, "max_wait": 0.0, "stats_every": 3_600.0, **options}
    return Service(current, door, **settings, log=log.append)


def serve(service: Service, content: bytes) -> bytes:
    """Send content through a pipe and return the answers."""
    reading, writing = os.pipe()

    def send() -> None:
        with os.fdopen(writing, "wb") as stream:
            stream.write(content)

    sender = threading.Thread(target=send)
    sender.start()
    output = io.BytesIO()
    try:
        service.run(Arrivals(reading), output)
    finally:
        os.close(reading)
        sender.join()
    return output.getvalue()


def answers_to(scorer: Scorer, content: bytes) -> list[dict[str, Any]]:
    output = serve(make_service(scorer, JsonDoor(), []), content)
    return [json.loads(line) for line in output.splitlines()]


ROW = json_rows(examples(1))[0]


@pytest.mark.parametrize(
    ("line", "reason", "error"),
    [
        pytest.param(b"{", "not_a_row", "not JSON", id="not JSON"),
        pytest.param(b"\xff", "not_a_row", "not JSON", id="not UTF-8"),
        pytest.param(b"[" * 100_000, "not_a_row", "not JSON", id="too deep"),
        pytest.param(b"3", "not_a_row", "a JSON int", id="number"),
        pytest.param(b"x" * (MAX_LINE_BYTES + 1), "not_a_row", "longer than", id="too long"),
        pytest.param(json_lines([{**ROW, "id": [1]}]), "not_a_row", "id is [1]", id="id"),
        pytest.param(
            json_lines([{**ROW, "behavior_text": 3}]),
            "invalid_value",
            "behavior_text is 3; allowed: text",
            id="text",
        ),
        pytest.param(
            json_lines([{**ROW, "behavior_text": "\ud800"}]),
            "invalid_value",
            "behavior_text is not Unicode",
            id="surrogate",
        ),
        pytest.param(
            json_lines([{"id": 0}]), "invalid_value", "behavior_text is missing", id="no text"
        ),
        pytest.param(
            json_lines([{**ROW, "features": {}}]),
            "invalid_value",
            "features missing: recency_days, order_count, amount_sum; null is unknown",
            id="no features",
        ),
        pytest.param(
            json_lines([{**ROW, "features": [1]}]), "invalid_value", "features is [1]", id="list"
        ),
        pytest.param(
            json_lines([{**ROW, "amount_sum": "1"}]),
            "invalid_value",
            "amount_sum is '1'; allowed: a number or null",
            id="number as text",
        ),
        pytest.param(
            json_lines([{**ROW, "amount_sum": 10**400}]), "invalid_value", "too large", id="large"
        ),
        pytest.param(
            json_lines([{**ROW, "amount_sum": -float("inf")}]),
            "infinite_feature",
            "column 'amount_sum': got -inf",
            id="infinite",
        ),
    ],
)
def test_a_bad_line_gets_an_error_and_the_next_a_score(
    scorer: Scorer, line: bytes, reason: str, error: str
) -> None:
    bad, good = answers_to(scorer, line.rstrip(b"\n") + b"\n" + json_lines([ROW]))
    assert (bad["line"], bad["reason"]) == (1, reason)
    assert error in bad["error"]
    assert len(bad["error"]) < 300
    assert "churn_probability" not in bad
    assert 0 < good["churn_probability"] < 1


@pytest.mark.parametrize("row_id", ["a", 7, 1.5, None, True], ids=str)
def test_the_id_is_echoed(scorer: Scorer, row_id: Any) -> None:
    assert answers_to(scorer, json_lines([{**ROW, "id": row_id}]))[0]["id"] == row_id


def test_unknown_features_may_be_null_or_nan(scorer: Scorer) -> None:
    rows = [{**ROW, "amount_sum": value} for value in (None, float("nan"))]
    first, second = answers_to(scorer, json_lines(rows))
    assert first == second


def test_a_last_line_without_end_is_a_line(scorer: Scorer) -> None:
    assert len(answers_to(scorer, json_lines([ROW]).rstrip())) == 1


def test_batches_do_not_change_scores(scorer: Scorer) -> None:
    content = json_lines(json_rows(examples(50)))
    single = serve(make_service(scorer, JsonDoor(), [], max_rows=1), content).splitlines()
    many = serve(make_service(scorer, JsonDoor(), [], max_rows=50), content).splitlines()
    for one, other in zip(map(json.loads, single), map(json.loads, many), strict=True):
        probability = one.pop("churn_probability")
        assert probability == pytest.approx(other.pop("churn_probability"), abs=1e-5)
        assert one == other


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"", "is not an Arrow stream", id="empty"),
        pytest.param(b"{}", "is not an Arrow stream", id="JSON"),
        pytest.param(arrow_stream(examples(300))[:-500], "was cut short", id="cut"),
        pytest.param(
            arrow_stream(examples(3).drop_columns(["amount_sum"])),
            "lacks columns amount_sum",
            id="columns",
        ),
    ],
)
def test_arrow_that_cannot_be_read_is_an_error(
    scorer: Scorer, content: bytes, message: str
) -> None:
    service = make_service(scorer, ArrowDoor(scorer.bundle), [], max_rows=100)
    with pytest.raises(InputError, match=message):
        serve(service, content)
    assert service.statistics.num_rows == (200 if "cut short" in message else 0)


def test_arrow_without_rows_is_answered_by_an_arrow_stream_without_rows(scorer: Scorer) -> None:
    output = serve(
        make_service(scorer, ArrowDoor(scorer.bundle), []), arrow_stream(examples(3).slice(3))
    )
    assert pa.ipc.open_stream(output).read_all().num_rows == 0


def test_damaged_text_in_arrow_is_refused_row_by_row(scorer: Scorer) -> None:
    table = examples(4)
    texts = pa.array([b"tenure", b"\xff", b"last", b""]).view(pa.string())
    index = table.schema.get_field_index("behavior_text")
    content = arrow_stream(table.set_column(index, "behavior_text", texts))
    output = serve(make_service(scorer, ArrowDoor(scorer.bundle), []), content)
    answers = pa.ipc.open_stream(output).read_all().to_pylist()
    assert [answer["reason"] for answer in answers] == [None, "invalid_value", None, None]
    assert [answer["churn_probability"] is None for answer in answers] == [
        False,
        True,
        False,
        False,
    ]


def test_our_own_bugs_end_the_service(scorer: Scorer, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> Any:
        raise AssertionError("bug")

    monkeypatch.setattr("churn_udf.cli.service.score_rows", fail)
    reading, writing = os.pipe()
    os.write(writing, json_lines([ROW]))
    try:
        with pytest.raises(AssertionError, match="bug"):  # although the input stays open
            make_service(scorer, JsonDoor(), []).run(Arrivals(reading), io.BytesIO())
    finally:
        os.close(writing)
        os.close(reading)


def test_statistics_come_at_every_interval(
    scorer: Scorer, logged: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    service = make_service(scorer, JsonDoor(), logged, stats_every=0.01, max_rows=1)
    serve(service, json_lines(json_rows(examples(60))))
    assert logged
    assert all(line.startswith("last 0.01 s: ") and " p99 " in line for line in logged)
    assert service.statistics.num_rows == 60


@pytest.fixture
def current(models_dir: Path, scorer: Scorer, logged: list[str]) -> CurrentScorer:
    return CurrentScorer(warmed(scorer), models_dir, Scorer.load, logged.append)


def test_the_champion_is_followed(
    current: CurrentScorer, models_dir: Path, logged: list[str]
) -> None:
    current.refresh(models_dir)
    assert logged == []
    second = promoted_bundle(models_dir, seed=1)
    current.refresh(models_dir)
    assert current.scorer.bundle.bundle_id == second.bundle_id
    assert len(logged) == 1


@pytest.mark.parametrize("trouble", ["settings", "features", "damaged", "registry"])
def test_a_champion_that_cannot_be_used_is_told_once_and_the_former_stays(
    current: CurrentScorer, models_dir: Path, logged: list[str], trouble: str
) -> None:
    first = current.scorer.bundle
    settings = model_settings(horizon_days=1) if trouble == "settings" else None
    features = [*FEATURES, "more"] if trouble == "features" else list(FEATURES)
    second = tiny_bundle(models_dir, features, settings, seed=1)
    set_champion(models_dir, second.bundle_id, reason="test")
    if trouble == "damaged":
        (second.directory / "metrics.json").write_text("{ }", encoding="utf-8")
    entry = newest_entry(models_dir)
    whole = entry.read_text(encoding="utf-8")
    if trouble == "registry":
        entry.write_text("{", encoding="utf-8")
    for _ in range(3):
        current.refresh(models_dir)
    assert current.scorer.bundle.bundle_id == first.bundle_id
    assert len(logged) == 1
    assert f"going on with {first.bundle_id}" in logged[0]
    entry.write_text(whole, encoding="utf-8")
    third = promoted_bundle(models_dir, seed=2)
    current.refresh(models_dir)
    assert current.scorer.bundle.bundle_id == third.bundle_id
