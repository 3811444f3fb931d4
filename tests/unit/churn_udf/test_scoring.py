"""The scoring core: Arrow in, Arrow out; one row's score is its own; bad rows are errors."""

import dataclasses
import threading

import numpy as np
import pyarrow as pa
import pytest
from factories import GROUPS, input_batch, tiny_bundle

from churn_udf import scoring
from churn_udf.contracts.bundle import FeatureSpec
from churn_udf.contracts.scores import SCORE_SCHEMA, input_schema
from churn_udf.errors import BundleIntegrityError, BundleMismatchError, ScoringError
from churn_udf.score_table import MIN_REASON_EFFECT
from churn_udf.scoring import MAX_BATCH_ROWS, Scorer
from churn_udf.thresholds import FeatureBands, GroupThresholds
from churn_udf.tokenization import CompactTokenizer

FEATURES = ("recency_days", "order_count", "amount_sum")


@dataclasses.dataclass
class FakeOutput:
    logits: np.ndarray
    group_effects: np.ndarray


class FakeRunner:
    """Logit = first feature; effects = the features; remembers how it was called."""

    feature_names = FEATURES
    feature_groups = (*GROUPS, "behaviour_text")

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.running = 0

    def tokens(self, behavior_texts, review_texts):
        return None

    def run(self, behavior_texts, review_texts, features, *, with_effects=True, tokens=None):
        self.running += 1
        assert self.running == 1, "two threads at once"
        self.sizes.append(len(features))
        known = np.nan_to_num(features)
        effects = np.column_stack([known, np.zeros(len(known))])[:, : None if with_effects else 0]
        self.running -= 1
        return FakeOutput(known[:, 0].copy(), effects)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return tiny_bundle(tmp_path_factory.mktemp("models"), FEATURES)


@pytest.fixture
def runner() -> FakeRunner:
    return FakeRunner()


@pytest.fixture
def scorer(bundle, runner) -> Scorer:
    return Scorer(bundle, runner)


@pytest.fixture(scope="module")
def real_scorer(bundle) -> Scorer:
    return Scorer.load(bundle, device="cpu")


def batch_of(rows: list[dict]) -> pa.RecordBatch:
    """Rows given by what differs from a plain one."""
    plain = {"behavior_text": "visit", "review_text_recent": "", **dict.fromkeys(FEATURES, 0.0)}
    full = [{**plain, "input_hash": f"h{i}", **row} for i, row in enumerate(rows)]
    columns = [pa.array([row[field.name] for row in full], field.type) for field in SCHEMA]
    return pa.RecordBatch.from_arrays(columns, names=SCHEMA.names)


SCHEMA = input_schema(FEATURES)


def test_a_real_model_scores_in_schema(real_scorer):
    scores = real_scorer.score_batch(input_batch(100, FEATURES))
    assert scores.schema == SCORE_SCHEMA
    scores.validate(full=True)
    probabilities = scores.column("churn_probability").to_numpy()
    assert ((probabilities > 0) & (probabilities < 1)).all()
    assert len(set(probabilities)) == 100
    calibrated = 1 / (1 + np.exp(-scores.column("churn_logit").to_numpy() / 1.5))
    np.testing.assert_allclose(probabilities, calibrated, rtol=1e-9)


def test_a_score_depends_on_its_row_alone(real_scorer):
    batch = input_batch(300, FEATURES)
    whole = real_scorer.score_batch(batch).to_pandas().set_index("input_hash")
    shuffled = np.random.default_rng(0).permutation(300)
    parts = [real_scorer.score_batch(batch.take(shuffled[i : i + 7])) for i in range(0, 300, 7)]
    again = pa.Table.from_batches(parts).to_pandas().set_index("input_hash").loc[whole.index]
    difference = (again["churn_probability"] - whole["churn_probability"]).abs().max()
    assert difference < 1e-5
    assert (again["risk_tier"] == whole["risk_tier"]).mean() > 0.99


def test_streams_in_slices_and_keeps_order(scorer, runner):
    batch = input_batch(2 * MAX_BATCH_ROWS + 5, FEATURES)
    parts = list(scorer.score_batches([batch, batch.slice(0, 0), batch.slice(0, 3)]))
    assert runner.sizes == [MAX_BATCH_ROWS, MAX_BATCH_ROWS, 5, 3]
    hashes = pa.Table.from_batches(parts).column("input_hash").to_pylist()
    assert hashes == batch.column("input_hash").to_pylist() + hashes[:3]


def test_reads_no_batch_before_it_is_asked_for(scorer):
    taken = []

    def source():
        for number in range(10):
            taken.append(number)
            yield input_batch(4, FEATURES)

    stream = scorer.score_batches(source())
    next(stream)
    assert taken == [0]


@pytest.mark.parametrize("num_rows", [0, 1])
def test_scores_few_rows(scorer, num_rows):
    scores = scorer.score_batch(input_batch(num_rows, FEATURES))
    assert (scores.num_rows, scores.schema) == (num_rows, SCORE_SCHEMA)


def test_no_rows_is_fine_for_a_real_model(real_scorer):
    assert real_scorer.score_batch(input_batch(0, FEATURES)).num_rows == 0


def test_columns_may_come_in_any_order_and_with_others(scorer):
    batch = input_batch(5, FEATURES)
    names = [*reversed(batch.schema.names)]
    mixed = batch.select(names).append_column("user_id", pa.array(list("abcde")))
    assert scorer.score_batch(mixed).equals(scorer.score_batch(batch))


def test_unknown_features_are_given_as_nan(bundle):
    class Recorder(FakeRunner):
        def run(self, behavior_texts, review_texts, features, **options):
            self.seen = features
            return super().run(behavior_texts, review_texts, features, **options)

    recorder = Recorder()
    texts = [{"behavior_text": text} for text in ("a", "b", "c")]
    counts = (None, float("nan"), 2)
    rows = [text | {"order_count": count} for text, count in zip(texts, counts, strict=True)]
    Scorer(bundle, recorder).score_batch(batch_of(rows))
    assert np.isnan(recorder.seen[:2, 1]).all()
    assert recorder.seen[2].tolist() == [0.0, 2.0, 0.0]


@pytest.mark.parametrize(
    ("row", "column"),
    [
        ({"behavior_text": None}, "behavior_text"),
        ({"review_text_recent": None}, "review_text_recent"),
        ({"order_count": float("inf")}, "order_count"),
        ({"amount_sum": float("-inf")}, "amount_sum"),
    ],
    ids=["null text", "null review", "infinite", "negative infinite"],
)
def test_a_bad_row_is_named_with_its_column(scorer, runner, row, column):
    with pytest.raises(ScoringError, match=f"'h1', column '{column}'") as caught:
        scorer.score_batch(batch_of([{}, row, {}]))
    assert "dbt build" in str(caught.value)
    assert runner.sizes == []


def test_a_row_without_hash_is_an_error(scorer):
    with pytest.raises(ScoringError, match="input_hash"):
        scorer.score_batch(batch_of([{"input_hash": None}]))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("where", ["logits", "group_effects"])
def test_a_score_that_is_not_finite_is_an_error(bundle, bad, where):
    class Broken(FakeRunner):
        def run(self, *args, **options):
            output = super().run(*args, **options)
            getattr(output, where)[1] = bad
            return output

    with pytest.raises(ScoringError, match="'h1'"):
        Scorer(bundle, Broken()).score_batch(batch_of([{"order_count": n} for n in range(3)]))


def test_a_missing_column_is_named(scorer):
    batch = input_batch(2, FEATURES).drop_columns(["order_count"])
    with pytest.raises(ScoringError, match="lacks column 'order_count'"):
        scorer.score_batch(batch)


def test_a_column_of_another_type_is_named(scorer):
    batch = batch_of([{}])
    texts = batch.set_column(batch.schema.get_field_index("order_count"), "order_count", ["many"])
    with pytest.raises(ScoringError, match="'order_count' is string; allowed: double"):
        scorer.score_batch(texts)


@pytest.mark.parametrize(
    ("effects", "reason"),
    [
        ((0.3, 0.9, 0.2), "frequency"),
        ((MIN_REASON_EFFECT, 0.0, -1.0), None),
        ((MIN_REASON_EFFECT + 1e-9, 0.0, -1.0), "recency"),
        ((-0.3, -0.9, -0.2), None),
        ((0.5, 0.5, 0.1), "recency"),
    ],
    ids=["largest", "at the bound", "above the bound", "only lowering", "tie: first"],
)
def test_the_reason_is_the_group_that_raises_the_risk_most(scorer, effects, reason):
    scores = scorer.score_batch(batch_of([dict(zip(FEATURES, effects, strict=True))]))
    assert scores.column("top_reason").to_pylist() == [reason]


def test_reasons_are_ranked_row_by_row(scorer):
    rows = [{"recency_days": 1.0, "order_count": -1.0}, {"amount_sum": 2.0, "order_count": 3.0}]
    scores = scorer.score_batch(batch_of(rows)).to_pylist()
    assert [row["reason_effects"] for row in scores] == [[1, 0, 0, -1], [3, 2, 0, 0]]
    assert scores[0]["reason_groups"] == ["recency", "spend", "behaviour_text", "frequency"]
    assert scores[1]["reason_groups"] == ["frequency", "spend", "recency", "behaviour_text"]


def test_threads_take_turns_and_agree(scorer, runner):
    batch = input_batch(500, FEATURES)
    expected = scorer.score_batch(batch)
    results = []
    threads = [
        threading.Thread(target=lambda: results.append(scorer.score_batch(batch))) for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 6
    assert all(result.equals(expected) for result in results)


def test_refuses_a_model_of_other_features(tmp_path, runner):
    other = tiny_bundle(tmp_path, [*FEATURES, FeatureSpec(name="more", group="spend")])
    with pytest.raises(BundleMismatchError, match="churn-train run"):
        Scorer(other, runner)


def test_equal_inputs_are_scored_once(scorer, runner):
    batch = input_batch(30, FEATURES)
    alone = scorer.score_batch(batch)
    rows = np.random.default_rng(0).integers(0, 30, 200)
    runner.sizes.clear()
    scores = scorer.score_batch(batch.take(pa.array(rows)))
    assert runner.sizes == [len(set(rows.tolist()))]
    assert scores.equals(alone.take(pa.array(rows)))
    scorer.score_batch(batch.take(pa.array(rows)), is_distinct=True)
    assert runner.sizes[1:] == [200]


def test_tokens_made_before_give_the_same_scores(bundle, real_scorer, monkeypatch):
    batch = input_batch(100, FEATURES).take(pa.array([*range(100), 3, 4]))
    expected = real_scorer.score_batch(batch)
    tokens = real_scorer.tokens(batch)
    monkeypatch.setattr(CompactTokenizer, "encode", None)
    for rows in (8_192, 40):
        monkeypatch.setattr(scoring, "MAX_BATCH_ROWS", rows)
        scores = real_scorer.score_batch(batch, tokens=tokens)
        np.testing.assert_allclose(
            scores.column("churn_logit"), expected.column("churn_logit"), atol=1e-5
        )


def test_flags_follow_the_group_of_the_row_and_nothing_else_does(bundle, runner):
    bands = FeatureBands(feature=FEATURES[1], bounds=(10.0,))
    groups = GroupThresholds(slice="s", bands=bands, flag_thresholds=(0.9, 0.4, 0.0))
    thresholds = dataclasses.replace(bundle.thresholds, groups=groups)
    batch = batch_of([{FEATURES[1]: value} for value in (9.9, 10.0, None)])
    plain = Scorer(bundle, runner).score_batch(batch)
    found = Scorer(dataclasses.replace(bundle, thresholds=thresholds), runner).score_batch(batch)
    probability = found.column("churn_probability").to_pylist()[0]
    assert 0.4 < probability < 0.9
    assert found.column("is_flagged").to_pylist() == [False, True, True]
    others = [name for name in SCORE_SCHEMA.names if name != "is_flagged"]
    assert found.select(others).equals(plain.select(others))


def test_groups_of_a_feature_that_the_model_lacks_are_refused(bundle, runner):
    groups = GroupThresholds(
        slice="s", bands=FeatureBands(feature="gone", bounds=()), flag_thresholds=(0.1, 0.1)
    )
    thresholds = dataclasses.replace(bundle.thresholds, groups=groups)
    with pytest.raises(BundleIntegrityError, match="'gone'"):
        Scorer(dataclasses.replace(bundle, thresholds=thresholds), runner)
