"""Rows that cannot be scored are listed with their reason; the others keep their own score."""

import dataclasses

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from factories import GROUPS, input_batch, tiny_bundle
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from churn_udf.contracts.scores import SCORE_SCHEMA, input_schema
from churn_udf.contracts.unscorable import UNSCORABLE_REASONS, UNSCORABLE_SCHEMA
from churn_udf.errors import ScoringError
from churn_udf.scoring import MAX_BATCH_ROWS, Scorer
from churn_udf.unscorable import MAX_VALUE_CHARS

FEATURES = ("recency_days", "order_count", "amount_sum")
SCHEMA = input_schema(FEATURES)
PLAIN = {"behavior_text": "visit", "review_text_recent": "", **dict.fromkeys(FEATURES, 1.0)}


@dataclasses.dataclass
class FakeOutput:
    logits: np.ndarray
    group_effects: np.ndarray


class FakeRunner:
    """Logit = first feature, not a number where that is 666; effects = the features."""

    feature_names = FEATURES
    feature_groups = (*GROUPS, "behaviour_text")

    def tokens(self, behavior_texts, review_texts):
        return None

    def run(self, behavior_texts, review_texts, features, *, with_effects=True, tokens=None):
        assert behavior_texts.null_count == review_texts.null_count == 0
        assert not np.isinf(features).any()
        known = np.nan_to_num(features)
        logits = np.where(known[:, 0] == 666, np.nan, known[:, 0])
        # 13 gives effects that are infinite both ways: their sum is not a number.
        effects = np.column_stack([known, np.zeros(len(known))])
        effects[known[:, 0] == 13, :2] = np.inf, -np.inf
        return FakeOutput(logits, effects)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return tiny_bundle(tmp_path_factory.mktemp("models"), FEATURES)


@pytest.fixture(scope="module")
def scorer(bundle) -> Scorer:
    return Scorer(bundle, FakeRunner())


@pytest.fixture(scope="module")
def real_scorer(bundle) -> Scorer:
    return Scorer.load(bundle, device="cpu")


def batch_of(rows: list[dict], **columns: pa.Array) -> pa.RecordBatch:
    """Rows given by what differs from a plain one; whole columns replace those of the rows."""
    full = [{**PLAIN, "input_hash": f"h{number}", **row} for number, row in enumerate(rows)]
    arrays = {f.name: pa.array([row[f.name] for row in full], f.type) for f in SCHEMA}
    return pa.RecordBatch.from_pydict({**arrays, **columns})


BAD_ROWS = {
    "null_input_hash": ({"input_hash": None}, "input_hash", None),
    "null_text": ({"behavior_text": None}, "behavior_text", None),
    "null_text of reviews": ({"review_text_recent": None}, "review_text_recent", None),
    "infinite_feature": ({"order_count": float("inf")}, "order_count", "inf"),
    "infinite_feature below": ({"amount_sum": float("-inf")}, "amount_sum", "-inf"),
    "score_not_finite": ({"recency_days": 666.0}, "churn_logit", "nan"),
    "score_not_finite of effects": ({"recency_days": 13.0}, "reason_effects", "nan"),
}


@pytest.mark.parametrize(("name", "case"), BAD_ROWS.items(), ids=BAD_ROWS)
def test_a_bad_row_is_listed_with_reason_column_and_value(scorer, name, case):
    row, column, value = case
    scores, listed = scorer.score_or_list(batch_of([{}, row, {}]))
    assert scores.column("input_hash").to_pylist() == ["h0", "h2"]
    assert scores.equals(scorer.score_batch(batch_of([{}, {}, {}]).take(pa.array([0, 2]))))
    (entry,) = listed.to_pylist()
    assert entry["row_index"] == 1
    assert entry["input_hash"] == (None if "input_hash" in row else "h1")
    assert entry["reason"] == name.split(" ")[0]
    assert (entry["column_name"], entry["value"]) == (column, value)
    assert f"column '{column}': got {value or 'null'}" in entry["detail"]
    assert "; allowed: " in entry["detail"]


def test_a_row_has_one_entry_per_reason_and_tells_how_many_columns(scorer):
    bad = {"behavior_text": None, "order_count": float("inf"), "amount_sum": float("-inf")}
    scores, listed = scorer.score_or_list(batch_of([bad]))
    assert (scores.num_rows, scores.schema) == (0, SCORE_SCHEMA)
    assert listed.schema == UNSCORABLE_SCHEMA
    assert listed.column("reason").to_pylist() == ["infinite_feature", "null_text"]
    assert listed.column("detail").to_pylist() == [
        "column 'order_count': got inf (and 1 more column); allowed: a finite number, or null "
        "where unknown",
        "column 'behavior_text': got null; allowed: text; '' where there is none",
    ]


def test_unknown_features_are_no_fault(scorer):
    rows = [{"order_count": None}, {"order_count": float("nan")}]
    scores, listed = scorer.score_or_list(batch_of(rows))
    assert (scores.num_rows, listed.num_rows) == (2, 0)


def test_cells_that_cannot_be_read_are_listed_and_the_column_goes_on(scorer):
    column = pa.array(["1.0", "many", None, "x" * 1_000, "inf", "1.0"])
    scores, listed = scorer.score_or_list(batch_of([{}] * 6, order_count=column))
    assert scores.column("input_hash").to_pylist() == ["h0", "h2", "h5"]
    assert scores.slice(0, 1).equals(scorer.score_batch(batch_of([{}])))
    assert listed.column("row_index").to_pylist() == [1, 3, 4]
    assert listed.column("reason").to_pylist() == ["invalid_value"] * 2 + ["infinite_feature"]
    assert listed.column("value").to_pylist() == ["many", "x" * MAX_VALUE_CHARS + "...", "inf"]


def test_text_that_is_not_utf8_is_an_invalid_value_and_no_null(scorer):
    column = pa.array([b"visit", b"\xff\xfe", None], pa.binary())
    scores, listed = scorer.score_or_list(batch_of([{}] * 3, behavior_text=column))
    assert scores.column("input_hash").to_pylist() == ["h0"]
    assert listed.column("reason").to_pylist() == ["invalid_value", "null_text"]


def test_a_row_of_nobody_is_listed_where_the_batch_says_whose_rows_they_are(scorer):
    scores, listed = scorer.score_or_list(batch_of([{}, {}], user_id=pa.array(["u0", None])))
    assert scores.column("input_hash").to_pylist() == ["h0"]
    assert listed.column("reason").to_pylist() == ["null_user_id"]


def test_a_column_that_is_missing_or_of_a_hopeless_type_is_an_error(scorer):
    with pytest.raises(ScoringError, match="lacks column 'order_count'"):
        scorer.score_or_list(batch_of([{}]).drop_columns(["order_count"]))
    lists = pa.array([[1.0]])
    with pytest.raises(ScoringError, match="'order_count' is list<item: double>; allowed: double"):
        scorer.score_or_list(batch_of([{}], order_count=lists))


def test_no_rows_and_more_rows_than_the_model_takes_at_once(scorer):
    scores, listed = scorer.score_or_list(batch_of([]))
    assert (scores.num_rows, listed.num_rows) == (0, 0)
    num_rows = MAX_BATCH_ROWS + 3
    rows = [{}] * num_rows
    rows[MAX_BATCH_ROWS] = {"recency_days": 666.0}
    scores, listed = scorer.score_or_list(batch_of(rows))
    assert scores.num_rows == num_rows - 1
    assert listed.column("row_index").to_pylist() == [MAX_BATCH_ROWS]


KINDS = [None, *(row for row, _, _ in BAD_ROWS.values())]


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    rows=st.lists(
        st.tuples(
            st.lists(st.sampled_from(KINDS), max_size=3),
            st.tuples(*[st.sampled_from([0.0, -3.5, 1e300, None, float("nan")])] * 3),
        ),
        max_size=12,
    )
)
def test_good_rows_get_exactly_the_score_they_get_alone(scorer, rows):
    """Any mix: a row is scored or listed, never both; strict callers raise iff one is listed."""
    full = []
    for flaws, features in rows:
        row = dict(zip(FEATURES, features, strict=True))
        for flaw in flaws:
            row.update(flaw or {})
        full.append(row)
    is_bad = [any(flaws) for flaws, _ in rows]
    batch = batch_of(full)
    scores, listed = scorer.score_or_list(batch)
    assert sorted(set(listed.column("row_index").to_pylist())) == list(np.flatnonzero(is_bad))
    assert set(listed.column("reason").to_pylist()) <= set(UNSCORABLE_REASONS)
    good = [number for number, bad in enumerate(is_bad) if not bad]
    alone = [scorer.score_batch(batch.slice(number, 1)) for number in good]
    assert pa.Table.from_batches([scores]).equals(
        pa.Table.from_batches(alone, schema=SCORE_SCHEMA).combine_chunks()
    )
    assert np.isfinite(scores.column("churn_probability").to_numpy()).all()
    if listed.num_rows:
        with pytest.raises(ScoringError):
            scorer.score_batch(batch)


def test_bad_neighbours_do_not_move_the_scores_of_a_real_model(real_scorer):
    batch = input_batch(120, FEATURES)
    expected = real_scorer.score_batch(batch).to_pandas().set_index("input_hash")
    is_bad = pa.array(np.random.default_rng(0).random(120) < 0.4)
    spoilt = pc.if_else(is_bad, pa.scalar(float("inf")), batch.column("amount_sum"))
    index = batch.schema.get_field_index("amount_sum")
    scores, listed = real_scorer.score_or_list(batch.set_column(index, "amount_sum", spoilt))
    assert listed.num_rows == pc.sum(is_bad).as_py() > 30
    found = scores.to_pandas().set_index("input_hash")
    assert len(found) + listed.num_rows == 120
    difference = found["churn_probability"] - expected.loc[found.index, "churn_probability"]
    assert difference.abs().max() < 1e-6


def test_a_number_too_large_for_the_model_spoils_its_own_row_alone(real_scorer):
    """1e308 passes as finite; whatever the model makes of it stays with that row."""
    batch = input_batch(20, FEATURES)
    expected = real_scorer.score_batch(batch).column("churn_probability").to_numpy()
    values = batch.column("amount_sum").to_pylist()
    values[7] = 1e308
    index = batch.schema.get_field_index("amount_sum")
    scores, listed = real_scorer.score_or_list(
        batch.set_column(index, "amount_sum", pa.array(values))
    )
    found = dict(
        zip(
            *(scores.column(n).to_pylist() for n in ("input_hash", "churn_probability")),
            strict=True,
        )
    )
    assert scores.num_rows + listed.num_rows == 20
    for number in [*range(7), *range(8, 20)]:
        assert found[f"hash-0-{number}"] == pytest.approx(expected[number], abs=1e-6)
