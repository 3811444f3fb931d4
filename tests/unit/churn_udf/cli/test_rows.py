from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from score_example import FEATURES, examples, promoted_bundle

from churn_udf.cli.rows import input_columns, model_input, score_rows
from churn_udf.errors import InputError
from churn_udf.scoring import Scorer


@pytest.fixture
def scorer(tmp_path: Path) -> Scorer:
    return Scorer.load(promoted_bundle(tmp_path))


def rows_of(table: pa.Table) -> pa.RecordBatch:
    return model_input(table.combine_chunks().to_batches()[0], FEATURES)


@pytest.mark.parametrize(
    "kind",
    [pa.int8(), pa.uint64(), pa.float32(), pa.decimal128(24, 3), pa.bool_(), pa.null()],
    ids=str,
)
def test_numbers_of_all_types_are_read(scorer: Scorer, kind: pa.DataType) -> None:
    values = pa.array([1, 0, None]).cast(kind) if kind != pa.null() else pa.nulls(3)
    table = examples(3)
    table = table.set_column(table.schema.get_field_index("order_count"), "order_count", values)
    input_columns(table.schema, scorer.bundle, "test")
    rows = rows_of(table)
    expected = [None] * 3 if kind == pa.null() else [1.0, 0.0, None]
    assert rows.column("order_count").to_pylist() == expected


@pytest.mark.parametrize(
    "kind",
    [pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())],
    ids=str,
)
def test_text_of_all_types_is_read(scorer: Scorer, kind: pa.DataType) -> None:
    table = examples(3)
    index = table.schema.get_field_index("behavior_text")
    changed = table.set_column(index, "behavior_text", table["behavior_text"].cast(kind))
    input_columns(changed.schema, scorer.bundle, "test")
    assert rows_of(changed).equals(rows_of(table))


@pytest.mark.parametrize(
    ("name", "kind"),
    [("order_count", pa.string()), ("order_count", pa.date32()), ("behavior_text", pa.int64())],
)
def test_columns_that_cannot_be_meant_are_refused(
    scorer: Scorer, name: str, kind: pa.DataType
) -> None:
    table = examples(3).drop_columns([name]).append_column(name, pa.nulls(3, kind))
    with pytest.raises(InputError, match=f"test has other types: {name} is "):
        input_columns(table.schema, scorer.bundle, "test")


def test_a_long_list_of_columns_is_cut(scorer: Scorer) -> None:
    schema = pa.schema([("behavior_text", pa.string())])
    with pytest.raises(InputError, match="lacks columns review_text_recent, recency_days"):
        input_columns(schema, scorer.bundle, "test")


def test_text_that_is_not_utf8_is_an_error() -> None:
    table = examples(2)
    texts = pa.array([b"fine", b"\xff"]).view(pa.string())
    index = table.schema.get_field_index("behavior_text")
    with pytest.raises(InputError, match="'behavior_text' is damaged"):
        rows_of(table.set_column(index, "behavior_text", texts))


def test_every_row_is_scored_or_refused(scorer: Scorer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows whose result is not a number are found among the others, whose scores stay."""
    rows = rows_of(examples(40))
    bad = {3, 4, 31}
    run = scorer._runner.run
    wanted = {repr(rows.column("amount_sum")[row].as_py()) for row in bad}

    def broken(texts: Any, reviews: Any, features: Any, **options: Any) -> Any:
        output = run(texts, reviews, features, **options)
        output.logits[[repr(float(value)) in wanted for value in features[:, 2]]] = np.nan
        return output

    expected = scorer.score_batch(rows)
    monkeypatch.setattr(scorer._runner, "run", broken)
    scored = score_rows(scorer, rows)
    assert set(scored.refusals) == bad
    assert {refusal.reason for refusal in scored.refusals.values()} == {"score_not_finite"}
    assert scored.positions.tolist() == [row for row in range(40) if row not in bad]
    np.testing.assert_allclose(
        scored.scores.column("churn_logit"),
        expected.column("churn_logit").take(pa.array(scored.positions)),
        atol=1e-5,
    )


@pytest.mark.parametrize("num_rows", [0, 1])
def test_few_rows(scorer: Scorer, num_rows: int) -> None:
    rows = rows_of(examples(1)).slice(0, num_rows)
    assert score_rows(scorer, rows).scores.num_rows == num_rows


def test_a_count_that_no_double_holds_is_rounded() -> None:
    table = examples(1).drop_columns(["order_count"])
    table = table.append_column("order_count", pa.array([2**60 + 1]))
    assert rows_of(table).column("order_count").to_pylist() == [2.0**60]
