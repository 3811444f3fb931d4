"""The SQL function churn_score(...) and the dbt-duckdb plugin that registers it."""

import dataclasses
import json
import subprocess
import sys
import threading

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from champion import forget_champion
from factories import GROUPS, input_batch, tiny_bundle

from churn_udf.bundle_store import set_champion
from churn_udf.errors import ScoringError, SettingsError
from churn_udf.scoring import Scorer
from churn_udf.warehouse.champion_scorers import champion_scorer, forget_scorers
from churn_udf.warehouse.duckdb_plugin import Plugin
from churn_udf.warehouse.udf import make_churn_score

FEATURES = ("recency_days", "order_count", "amount_sum")
CALL = "churn_score(behavior_text, review_text_recent, [recency_days, order_count, amount_sum])"


@dataclasses.dataclass
class FakeOutput:
    logits: np.ndarray
    group_effects: np.ndarray


class FakeRunner:
    """Logit = first feature."""

    feature_names = FEATURES
    feature_groups = GROUPS

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def run(self, behavior_texts, review_texts, features, *, with_effects=True, tokens=None):
        assert not with_effects, "the function returns probabilities alone"
        self.sizes.append(len(features))
        self.reviews = review_texts.to_pylist()
        self.features = features
        return FakeOutput(np.nan_to_num(features[:, 0]), np.zeros((len(features), 0)))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return tiny_bundle(tmp_path_factory.mktemp("models"), FEATURES)


@pytest.fixture
def runner() -> FakeRunner:
    return FakeRunner()


@pytest.fixture
def connection(bundle, runner):
    """A connection with the function over a model that answers at once."""
    scorer = Scorer(bundle, runner)
    plugin = Plugin("churn", {"models_dir": str(bundle.directory.parent.parent)})
    plugin._scorer = lambda: scorer
    with duckdb.connect() as connection:
        plugin.configure_connection(connection)
        yield connection


@pytest.fixture
def plugin(tmp_path) -> Plugin:
    forget_scorers()
    return Plugin("churn", {"models_dir": str(tmp_path), "device": "cpu"})


@pytest.fixture
def live(plugin):
    """A connection with the plugin's own function."""
    with duckdb.connect() as connection:
        plugin.configure_connection(connection)
        plugin.configure_cursor(connection)
        yield connection


def calibrated(logit: float) -> float:
    return 1 / (1 + np.exp(-logit / 1.5))


def test_one_row_of_literals(connection):
    query = "select churn_score('visit dairy', 'great', [2, 3, null])"
    assert connection.execute(query).fetchall()[0][0] == pytest.approx(calibrated(2))


def test_null_text_gives_null_and_never_reaches_the_model(connection, runner):
    query = """
        select churn_score(text, '', features)
        from (values ('a', [1, 0, 0]), (null, [1, 0, 0]), (null, null), ('b', [2, 0, 0]))
            as rows (text, features)
    """
    values = [row[0] for row in connection.execute(query).fetchall()]
    assert values == [pytest.approx(calibrated(1)), None, None, pytest.approx(calibrated(2))]
    assert sum(runner.sizes) == 2


def test_nulls_alone_need_no_model(live):
    assert live.execute("select churn_score(null, null, null)").fetchall() == [(None,)]


def test_null_review_is_no_review_and_null_feature_is_unknown(connection, runner):
    connection.execute("select churn_score('a', null, [1, null, 'nan'::double])").fetchall()
    assert runner.reviews == [""]
    assert np.isnan(runner.features[0]).tolist() == [False, True, True]


@pytest.mark.parametrize(
    ("features", "seen"),
    [("null", "features is null"), ("[]", "a list of 0"), ("[1, 2]", "a list of 2"),
     ("[1, 2, 3, 4]", "a list of 4"), ("['inf'::double, 1, 1]", "recency_days")],
    ids=["null", "empty", "too few", "too many", "infinite"],
)  # fmt: skip
def test_bad_features_are_an_error_that_says_what_to_do(connection, features, seen):
    with pytest.raises(duckdb.Error, match=seen):
        connection.execute(f"select churn_score('a', '', {features})").fetchall()


def test_many_rows_threads_and_filters(connection, runner):
    """100,000 rows from a table of several row groups; the result fits each row."""
    connection.execute(
        """
        create table rows as
        select
            range as row_id,
            'visit ' || range as behavior_text,
            case when range % 5 = 0 then null else 'great' end as review_text_recent,
            (range % 7) - 3.0 as recency_days,
            null::double as order_count,
            range::double as amount_sum
        from range(100000)
        """
    )
    connection.execute("set threads = 2")
    wrong = f"""
        select count(*) from (select *, {CALL} as score from rows)
        where abs(score - 1 / (1 + exp(-recency_days / 1.5))) > 1e-9
    """
    assert connection.execute(wrong).fetchall() == [(0,)]
    assert sum(runner.sizes) >= 100_000
    kept = connection.execute(f"select count(*) from rows where {CALL} > 0.5 and row_id % 2 = 0")
    assert kept.fetchall()[0][0] == sum((n % 7) - 3 > 0 for n in range(0, 100_000, 2))


def test_cursors_in_several_threads_see_the_function(connection):
    results = []

    def work(number: int) -> None:
        with connection.cursor() as cursor:
            query = "select sum(churn_score('a', '', [?, 0, 0])) from range(5000)"
            results.append((number, cursor.execute(query, [number]).fetchall()[0][0]))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = [(number, pytest.approx(5000 * calibrated(number))) for number in range(4)]
    assert sorted(results) == expected


def test_a_row_that_fails_stops_the_query(bundle):
    class Broken(FakeRunner):
        def run(self, behavior_texts, review_texts, features, **options):
            output = super().run(behavior_texts, review_texts, features, **options)
            output.logits[0] = float("nan")
            return output

    function = make_churn_score(lambda: Scorer(bundle, Broken()))
    lists = pa.array([[1.0, 2.0, 3.0]], pa.list_(pa.float64()))
    with pytest.raises(ScoringError, match="churn_logit"):
        function(pa.array(["a"]), pa.array([""]), lists)


def test_chunked_input_is_read_like_plain(bundle, runner):
    function = make_churn_score(lambda: Scorer(bundle, runner))
    texts, reviews = pa.chunked_array([["a"], ["b"]]), pa.chunked_array([["", None]])
    lists = pa.chunked_array([[[1.0, 0, 0]], [[2.0, 0, 0]]], pa.list_(pa.float64()))
    expected = pytest.approx([calibrated(1), calibrated(2)])
    assert function(texts, reviews, lists).to_pylist() == expected


def score_once(connection) -> float:
    query = "select churn_score('visit dairy', '', [1, 2, 3])"
    return connection.execute(query).fetchall()[0][0]


def test_without_a_champion_the_error_says_what_to_run(live):
    with pytest.raises(duckdb.Error, match=r"no champion.*churn-train run"):
        score_once(live)


def test_a_tampered_bundle_is_refused(live, tmp_path):
    bundle = tiny_bundle(tmp_path, FEATURES)
    set_champion(tmp_path, bundle.bundle_id, reason="test")
    (bundle.directory / "extra.txt").write_text("x")
    with pytest.raises(duckdb.Error, match=r"not in the manifest.*churn-train run"):
        score_once(live)


def test_a_promotion_takes_effect_at_the_next_call(live, tmp_path):
    for seed in (1, 2):
        bundle = tiny_bundle(tmp_path, FEATURES, seed=seed)
        set_champion(tmp_path, bundle.bundle_id, reason="test")
        row = pa.RecordBatch.from_pydict(
            {"input_hash": ["h"], "behavior_text": ["visit dairy"], "review_text_recent": [""],
             "recency_days": [1.0], "order_count": [2.0], "amount_sum": [3.0]}
        )  # fmt: skip
        expected = Scorer.load(bundle, device="cpu").score_batch(row).column("churn_probability")
        assert score_once(live) == pytest.approx(expected[0].as_py(), abs=1e-6)
    forget_champion(tmp_path)
    with pytest.raises(duckdb.Error, match="no champion"):
        score_once(live)


@pytest.mark.parametrize(
    ("settings", "names", "message"),
    [
        ({}, FEATURES, None),
        ({"horizon_days": 7}, FEATURES, "horizon_days: bundle 30, warehouse 7"),
        ({"feature_version": 2}, FEATURES, "feature_version"),
        ({}, FEATURES[::-1], "feature"),
    ],
    ids=["same", "horizon", "feature-sql", "order"],
)
def test_rows_built_for_another_model_are_refused(live, tmp_path, settings, names, message):
    bundle = tiny_bundle(tmp_path, FEATURES)
    set_champion(tmp_path, bundle.bundle_id, reason="test")
    contract = json.dumps(
        {
            "settings": {**bundle.manifest.settings.to_dict(), **settings},
            "feature_names": list(names),
        }
    )
    query = "select churn_score_checked('visit dairy', '', [1, 2, 3], ?)"
    if message is None:
        assert live.execute(query, [contract]).fetchall()[0][0] == score_once(live)
        return
    with pytest.raises(duckdb.Error, match=message):
        live.execute(query, [contract]).fetchall()


def test_sql_and_batches_agree(live, tmp_path):
    bundle = tiny_bundle(tmp_path, FEATURES)
    set_champion(tmp_path, bundle.bundle_id, reason="test")
    batch = input_batch(3000, FEATURES, seed=4)
    live.register("batch", pa.Table.from_batches([batch]))
    in_sql = live.execute(f"select input_hash, {CALL} as p from batch").fetchall()
    offline = champion_scorer(tmp_path, device="cpu").score_batch(batch)
    expected = dict(
        zip(*(offline.column(name).to_pylist() for name in ("input_hash", "churn_probability")),
            strict=True)
    )  # fmt: skip
    assert max(abs(value - expected[key]) for key, value in in_sql) < 1e-5
    assert len(in_sql) == 3000


@pytest.mark.parametrize(
    ("config", "seen"),
    [
        ({}, "models_dir None"),
        ({"models_dir": ""}, "models_dir ''"),
        ({"models_dir": 3}, "models_dir 3"),
        ({"models_dir": "m", "device": None}, "device None"),
        ({"models_dir": "m", "modelsdir": "n"}, "modelsdir"),
    ],
    ids=["nothing", "empty", "number", "no device", "unknown key"],
)
def test_the_plugin_checks_its_config(config, seen):
    with pytest.raises(SettingsError, match=seen) as caught:
        Plugin("churn", config)
    assert "allowed" in str(caught.value)


def test_settings_of_the_target_are_no_unknown_keys():
    class Credentials:
        settings = {"TimeZone": "UTC"}  # noqa: RUF012

    Plugin("churn", {"models_dir": "m", "TimeZone": "UTC"}, credentials=Credentials())


def test_a_device_that_is_not_there_is_an_error(tmp_path):
    forget_scorers()
    set_champion(tmp_path, tiny_bundle(tmp_path, FEATURES).bundle_id, reason="test")
    plugin = Plugin("churn", {"models_dir": str(tmp_path), "device": "cuda:99"})
    with duckdb.connect() as connection:
        plugin.configure_connection(connection)
        with pytest.raises(duckdb.Error, match=r"cuda:99.*allowed"):
            score_once(connection)


def test_connecting_loads_no_torch(tmp_path):
    code = f"""
import sys, duckdb
from churn_udf.warehouse.duckdb_plugin import Plugin
plugin = Plugin("churn", {{"models_dir": {str(tmp_path)!r}}})
connection = duckdb.connect()
plugin.configure_connection(connection)
plugin.configure_cursor(connection.cursor())
connection.execute("select churn_score(null, null, null)").fetchall()
connection.close()
sys.exit("torch is loaded" if "torch" in sys.modules else 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
