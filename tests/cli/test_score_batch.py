from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from factories import model_settings, tiny_bundle
from score_example import (
    FEATURES,
    arrow_stream,
    examples,
    promoted_bundle,
    write,
)

from churn_udf.bundle_store import open_champion, set_champion
from churn_udf.cli import main
from churn_udf.cli.inputs import Source
from churn_udf.scoring import Scorer
from trainer.data.synthetic import synthetic_snapshot

Invoke = Callable[..., Result]
RESULTS = [
    *("churn_probability", "churn_logit", "risk_tier", "is_flagged", "top_reason", "bundle_id"),
]


@pytest.fixture
def batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Invoke:
    """Runs `churn-score batch` in this process, in a folder with a champion."""
    monkeypatch.delenv("CHURN_MODELS_DIR", raising=False)
    monkeypatch.chdir(tmp_path)
    promoted_bundle(Path("models"))

    def run(*arguments: object) -> Result:
        return CliRunner().invoke(main, ["batch", *map(str, arguments)], catch_exceptions=False)

    return run


def expected_scores(table: pa.Table) -> pa.Table:
    names = ["input_hash", "behavior_text", "review_text_recent", *FEATURES]
    rows = table.select(names).combine_chunks().to_batches()[0]
    return pa.Table.from_batches([Scorer.load(open_champion(Path("models"))).score_batch(rows)])


@pytest.mark.parametrize("suffix", [".parquet", ".arrow", ".arrows"])
def test_scores_are_those_of_the_scorer_in_order(batch: Invoke, suffix: str) -> None:
    table = examples(300)
    source = write(table, Path(f"in{suffix}"))
    result = batch("--input", source, "--output", "out.parquet")
    assert result.exit_code == 0, result.stderr
    assert "scored 300 rows" in result.stderr
    assert "0 unscorable" in result.stderr
    assert result.stdout == ""
    scored = pq.read_table("out.parquet")
    assert scored.schema.names == ["user_id", "cutoff_date", "input_hash", *RESULTS]
    expected = expected_scores(table)
    for name in ("user_id", "cutoff_date", "input_hash"):
        assert scored[name].combine_chunks().equals(table[name].combine_chunks())
    for name in ("churn_probability", "churn_logit"):
        np.testing.assert_allclose(scored[name], expected[name], atol=1e-5)
    for name in ("risk_tier", "is_flagged", "top_reason"):
        assert scored[name].to_pylist() == expected[name].to_pylist()
    assert set(scored["bundle_id"].to_pylist()) == {open_champion(Path("models")).bundle_id}
    assert sorted(path.name for path in Path().iterdir()) == sorted(
        ["models", source.name, "out.parquet"]
    )


def test_arrow_file_out_and_chosen_columns(batch: Invoke) -> None:
    source = write(examples(5), Path("in.parquet"))
    assert (
        batch("-i", source, "-o", "out.arrow", "--keep", "cutoff_date,order_count").exit_code == 0
    )
    with pa.ipc.open_file("out.arrow") as file:
        scored = file.read_all()
    assert scored.schema.names == ["cutoff_date", "order_count", *RESULTS]
    assert scored.schema.field("order_count").type == pa.int32()


def test_rows_without_keys_are_numbered(batch: Invoke) -> None:
    table = examples(3).select(["behavior_text", "review_text_recent", *FEATURES])
    assert batch("-i", write(table, Path("in.parquet")), "-o", "out.parquet").exit_code == 0
    assert pq.read_table("out.parquet")["row_number"].to_pylist() == [1, 2, 3]


def test_another_bundle_than_the_champion(batch: Invoke) -> None:
    other = tiny_bundle(Path("models"), FEATURES, seed=1)
    source = write(examples(3), Path("in.parquet"))
    assert batch("-i", source, "-o", "out.parquet", "--bundle", other.bundle_id).exit_code == 0
    assert set(pq.read_table("out.parquet")["bundle_id"].to_pylist()) == {other.bundle_id}


def test_a_folder_is_read_in_the_order_of_its_files(batch: Invoke) -> None:
    table = examples(10)
    Path("parts").mkdir()
    write(table.slice(4), Path("parts/part-1.parquet"))
    write(table.slice(0, 4), Path("parts/part-0.parquet"))
    Path("parts/.part-2.parquet").write_bytes(b"half")
    assert batch("-i", "parts", "-o", "out.parquet").exit_code == 0
    assert pq.read_table("out.parquet")["user_id"].to_pylist() == [f"u{row}" for row in range(10)]


@pytest.mark.parametrize("change", ["column", "settings"])
def test_files_of_a_folder_belong_together(batch: Invoke, change: str) -> None:
    table = examples(4)
    Path("parts").mkdir()
    write(table, Path("parts/part-0.parquet"))
    other = table.drop_columns(["amount_sum"]).append_column("amount_sum", pa.array([1.0] * 4))
    if change == "settings":
        contract = json.dumps({"settings": model_settings().to_dict()})
        other = table.replace_schema_metadata({"churn_contract": contract})
    write(other, Path("parts/part-1.parquet"))
    result = batch("-i", "parts", "-o", "out.parquet")
    assert result.exit_code == 1
    assert "parts/part-1.parquet" in result.stderr
    assert "allowed in one folder" in result.stderr
    assert not Path("out.parquet").exists()


def unscorable_table() -> pa.Table:
    table = examples(6)
    texts = table["behavior_text"].to_pylist()
    texts[2] = None
    days = [1.0, float("inf"), None, 4.0, 5.0, 6.0]
    table = table.set_column(
        table.schema.get_field_index("behavior_text"), "behavior_text", [texts]
    )
    return table.set_column(table.schema.get_field_index("recency_days"), "recency_days", [days])


def test_unscorable_rows_are_listed_and_get_no_number(batch: Invoke) -> None:
    source = write(unscorable_table(), Path("in.parquet"))
    result = batch("-i", source, "-o", "out.parquet", "--unscorable", "refused.parquet")
    assert result.exit_code == 0
    assert pq.read_table("out.parquet")["user_id"].to_pylist() == ["u0", "u3", "u4", "u5"]
    refused = pq.read_table("refused.parquet").to_pylist()
    assert [(row["user_id"], row["row_number"]) for row in refused] == [("u1", 2), ("u2", 3)]
    assert [row["reason"] for row in refused] == ["infinite_feature", "null_text"]
    assert refused[0]["detail"] == (
        "column 'recency_days': got inf; allowed: a finite number, or null where unknown"
    )
    assert refused[1]["detail"] == (
        "column 'behavior_text': got null; allowed: text; '' where there is none"
    )
    assert "2 unscorable" in result.stderr
    assert "unscorable: user_id u1" in result.stderr


def test_the_list_is_empty_when_all_is_scored(batch: Invoke) -> None:
    Path("refused.parquet").write_bytes(b"of yesterday")
    source = write(examples(3), Path("in.parquet"))
    assert batch("-i", source, "-o", "o.parquet", "--unscorable", "refused.parquet").exit_code == 0
    assert pq.read_table("refused.parquet").num_rows == 0


def test_unscorable_rows_can_fail_the_run(batch: Invoke) -> None:
    Path("out.parquet").write_bytes(b"before")
    source = write(unscorable_table(), Path("in.parquet"))
    arguments = ["-i", source, "-o", "out.parquet", "--on-unscorable", "fail"]
    result = batch(*arguments, "--unscorable", "refused.parquet", "--quiet")
    assert result.exit_code == 1
    assert "2 of 6 rows cannot be scored (listed in refused.parquet)" in result.stderr
    assert result.stderr.count("\n") == 1
    assert Path("out.parquet").read_bytes() == b"before"
    assert pq.read_table("refused.parquet").num_rows == 2


def test_a_null_review_is_no_review(batch: Invoke) -> None:
    table = examples(4)
    index = table.schema.get_field_index("review_text_recent")
    scored = []
    for reviews in ([""] * 4, [None] * 4):
        changed = table.set_column(index, "review_text_recent", pa.array(reviews, pa.string()))
        assert batch("-i", write(changed, Path("in.parquet")), "-o", "o.parquet").exit_code == 0
        scored.append(pq.read_table("o.parquet"))
    assert scored[0].equals(scored[1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(
            lambda table: table.drop_columns(["amount_sum"]), "lacks columns amount_sum", id="lacks"
        ),
        pytest.param(
            lambda table: table.set_column(0, "order_count", pa.array(["1"] * 3)).drop_columns(
                ["review_text_recent"]
            ),
            "has twice order_count",
            id="twice",
        ),
        pytest.param(
            lambda table: table.drop_columns(["amount_sum"]).append_column(
                "amount_sum", pa.array(["1.0"] * 3)
            ),
            "amount_sum is string (allowed: number)",
            id="type",
        ),
    ],
)
def test_wrong_columns_are_named_before_anything_is_written(
    batch: Invoke, change: Callable[[pa.Table], pa.Table], message: str
) -> None:
    result = batch("-i", write(change(examples(3)), Path("in.arrow")), "-o", "out.parquet")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: in.arrow ")
    assert message in result.stderr
    assert "needs behavior_text, review_text_recent and its 3 features" in result.stderr
    assert not Path("out.parquet").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(["-i", "no.parquet", "-o", "o.parquet"], "No such file", id="input"),
        pytest.param(["-i", "in.parquet", "-o", "o.csv"], "names no format", id="suffix"),
        pytest.param(["-i", "in.parquet", "-o", "no/o.parquet"], "no folder", id="folder"),
        pytest.param(["-i", "in.parquet", "-o", "models"], "not a plain file", id="place"),
        pytest.param(["-i", "text.txt", "-o", "o.parquet"], "cannot be read", id="text"),
        pytest.param(["-i", "empty.arrow", "-o", "o.parquet"], "is empty", id="empty"),
        pytest.param(
            ["-i", "in.parquet", "-o", "o.parquet", "--input-format", "arrow"],
            "is not arrow",
            id="format",
        ),
        pytest.param(
            ["-i", "in.parquet", "-o", "o.parquet", "--keep", "nobody"], "nobody", id="keep"
        ),
        pytest.param(
            ["-i", "in.parquet", "-o", "o.parquet", "--models-dir", "none"],
            "no champion in",
            id="models",
        ),
        pytest.param(
            ["-i", "in.parquet", "-o", "o.parquet", "--bundle", "abc"], "16 hex digits", id="bundle"
        ),
    ],
)
def test_expected_failure_exits_1_with_one_line(
    batch: Invoke, arguments: list[str], message: str
) -> None:
    write(examples(3), Path("in.parquet"))
    Path("text.txt").write_text("no columns here", encoding="utf-8")
    Path("empty.arrow").write_bytes(b"")
    result = batch("--quiet", *arguments)
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert message in result.stderr
    assert not list(Path().glob("o*.parquet"))


def test_parquet_to_standard_output_is_wrong_usage(batch: Invoke) -> None:
    assert batch("--output-format", "parquet").exit_code == 2


def test_a_link_is_followed_and_its_file_replaced(batch: Invoke, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "out.parquet").symlink_to("data/real.parquet")
    assert batch("-i", write(examples(2), Path("in.parquet")), "-o", "out.parquet").exit_code == 0
    assert (tmp_path / "out.parquet").is_symlink()
    assert pq.read_table(tmp_path / "data" / "real.parquet").num_rows == 2


def test_a_snapshot_folder_is_scored_and_its_settings_are_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CHURN_MODELS_DIR", raising=False)
    snapshot = synthetic_snapshot(tmp_path / "snapshots", num_users=30)
    codes = []
    for changes in ({}, {"horizon_days": 1}):
        settings = type(model_settings()).from_mapping({**snapshot.document["settings"], **changes})
        bundle = tiny_bundle(Path("models"), snapshot.feature_names, settings)
        set_champion(Path("models"), bundle.bundle_id, reason="test")
        arguments = ["batch", "-i", str(snapshot.path), "-o", "out.parquet"]
        result = CliRunner().invoke(main, arguments, catch_exceptions=False)
        codes.append(result.exit_code)
        assert "does not tell its settings" not in result.stderr
    assert codes == [0, 1]
    assert "horizon_days: bundle 1, warehouse" in result.stderr
    assert pq.read_table("out.parquet").num_rows == snapshot.table.num_rows


def test_settings_in_the_metadata_are_checked(batch: Invoke) -> None:
    contract = b'{"settings": {"observation_days": 1}}'
    table = examples(2).replace_schema_metadata({"churn_contract": contract})
    result = batch("-i", write(table, Path("in.parquet")), "-o", "out.parquet")
    assert result.exit_code == 1
    assert "'eligibility_days' is missing" in result.stderr


def test_batches_are_read_one_by_one(batch: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    """A source of any length costs the memory of a batch: none is asked for before its turn."""
    one = examples(50)
    events: list[str] = []

    def read(columns: Any, max_rows: int) -> Any:
        for number in range(20):
            events.append(f"read {number}")
            yield from one.select(columns).combine_chunks().to_batches()

    class Opened:
        def __enter__(self) -> Source:
            return Source("fake", one.schema, read)

        def __exit__(self, *_: object) -> None:
            pass

    score_or_list = Scorer.score_or_list

    def recorded(scorer: Scorer, rows: pa.RecordBatch) -> tuple[pa.RecordBatch, pa.RecordBatch]:
        events.append(f"score {sum(event.startswith('score') for event in events)}")
        return score_or_list(scorer, rows)

    monkeypatch.setattr("churn_udf.cli.scoring_run.open_source", lambda *_: Opened())
    monkeypatch.setattr(Scorer, "score_or_list", recorded)
    assert batch("-o", "out.parquet").exit_code == 0
    assert events == [f"{what} {number}" for number in range(20) for what in ("read", "score")]
    assert pq.read_table("out.parquet").num_rows == 1_000


@pytest.mark.parametrize("cut", [9, 100], ids=["before the end mark", "in a batch"])
def test_a_stream_cut_short_replaces_nothing(batch: Invoke, cut: int) -> None:
    Path("out.parquet").write_bytes(b"before")
    content = arrow_stream(examples(300))
    end = len(content) - 8 if cut == 9 else len(content) - cut
    Path("in.arrows").write_bytes(content[:end])
    result = batch("-i", "in.arrows", "-o", "out.parquet")
    assert result.exit_code == 1
    assert "end mark" in result.stderr or "cannot be read" in result.stderr
    assert Path("out.parquet").read_bytes() == b"before"
    assert not list(Path().glob(".*"))


def test_precision_is_the_bundles_unless_exact_is_asked_for(
    batch: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, load = [], Scorer.load.__func__  # type: ignore[attr-defined]

    def recorded(cls: type[Scorer], bundle: Any, **options: Any) -> Scorer:
        asked.append(options["precision"])
        return load(cls, bundle, **options)

    monkeypatch.setattr(Scorer, "load", classmethod(recorded))
    source = write(examples(3), Path("in.parquet"))
    assert batch("-i", source, "-o", "a.parquet").exit_code == 0
    assert batch("-i", source, "-o", "b.parquet", "--precision", "fp32").exit_code == 0
    assert asked == ["auto", "fp32"]
    assert batch("-i", source, "-o", "c.parquet", "--precision", "int4").exit_code == 2
