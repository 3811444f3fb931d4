"""The Python model's parts: the durable cache, chunks, progress, and errors in mid-run."""

import datetime
import json
import shutil
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
from factories import input_batch, tiny_bundle
from scoring_world import scoring_context

from churn_udf.bundle_store import read_champion, set_champion
from churn_udf.contracts.bundle import WEIGHTS_FILE
from churn_udf.errors import BundleIntegrityError, BundleMismatchError, ScoringError, SettingsError
from churn_udf.scoring import Scorer
from churn_udf.warehouse import (
    CONTEXT_VARIABLE,
    DEVICE_VARIABLE,
    MODELS_DIR_VARIABLE,
    dbt_model,
    score_cache,
)
from churn_udf.warehouse.champion_scorers import forget_scorers
from churn_udf.warehouse.dbt_model import Progress, model, read_context
from churn_udf.warehouse.score_cache import CACHE_SCHEMA, SQL_TYPES, ScoreCache

FEATURES = ("recency_days", "order_count", "amount_sum")
CUTOFF = datetime.date(2024, 3, 1)


@pytest.fixture(scope="module")
def models_dir(tmp_path_factory):
    directory = tmp_path_factory.mktemp("models")
    set_champion(directory, tiny_bundle(directory, FEATURES).bundle_id, reason="test")
    return directory


@pytest.fixture
def session(tmp_path, models_dir):
    """A database with 100 inputs, and the variables that plugin and hook leave."""
    forget_scorers()
    with duckdb.connect(str(tmp_path / "test.duckdb")) as session:
        inputs = pa.Table.from_batches([input_batch(100, FEATURES)])
        session.register("inputs", inputs)
        session.execute(
            f"create table examples as select 'u' || row_number() over () as user_id, "
            f"date '{CUTOFF}' as cutoff_date, true as is_score_cutoff, * from inputs"
        )
        session.execute(
            f"create table cutoffs as select date '{CUTOFF}' as cutoff_date, "
            "true as is_score_cutoff, 'h' as settings_hash"
        )
        context = scoring_context()
        set_variable(session, MODELS_DIR_VARIABLE, str(models_dir))
        set_variable(session, DEVICE_VARIABLE, "cpu")
        set_variable(session, CONTEXT_VARIABLE, json.dumps(context))
        yield session


def set_variable(session, name: str, value: str) -> None:
    session.execute(f"set variable {name} = ?", [value])


def cached(session) -> int:
    return session.cursor().execute("select count(*) from churn_score_cache").fetchall()[0][0]


def cache_of(session, bundle_id: str | None = None) -> ScoreCache:
    """The cache of a bundle, the champion by default."""
    if bundle_id is None:
        directory = session.execute(f"select getvariable('{MODELS_DIR_VARIABLE}')").fetchall()[0][0]
        bundle_id = read_champion(Path(directory)).bundle_id
    return ScoreCache(
        session,
        relation="churn_score_cache",
        examples="examples",
        cutoff_date=CUTOFF,
        bundle_id=bundle_id,
        unscorable="churn_unscorable_inputs",
    )


@pytest.fixture
def logged(monkeypatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(dbt_model, "dbt_logger", lambda: lines.append)
    return lines


def test_scores_everything_once(session, logged):
    result = model(None, session).read_all()
    assert (result.schema.names, result.schema.types) == (CACHE_SCHEMA.names, CACHE_SCHEMA.types)
    assert sorted(result.column("input_hash").to_pylist()) == sorted(
        f"hash-0-{row}" for row in range(100)
    )
    assert logged[0].endswith("100 distinct inputs at the score cutoff, 100 to score")
    assert model(None, session).read_all().num_rows == 100
    assert logged[-1].endswith("0 to score")
    assert cached(session) == 100


def test_works_while_dbt_holds_a_transaction_with_writes(session, logged):
    session.execute("begin transaction")
    session.execute("create table of_dbt as select 1 as a")
    session.execute("select count(*) from examples").fetchall()
    assert model(None, session).read_all().num_rows == 100
    session.execute("rollback")
    assert cached(session) == 100


def test_a_run_that_breaks_keeps_what_was_scored_before(session, logged, monkeypatch):
    monkeypatch.setattr(dbt_model, "FIRST_CHUNK_ROWS", 10)
    monkeypatch.setattr(dbt_model, "CHUNK_SECONDS", 0.0)
    score_or_list, calls = Scorer.score_or_list, []

    def break_down(self, batch, **options):
        calls.append(batch.num_rows)
        if len(calls) == 4:
            raise ScoringError("the device is gone")
        return score_or_list(self, batch, **options)

    monkeypatch.setattr(Scorer, "score_or_list", break_down)
    with pytest.raises(ScoringError, match="device is gone"):
        model(None, session)
    assert cached(session) == 30
    assert model(None, session).read_all().num_rows == 100
    assert sum(calls[4:]) == 70


def test_two_threads_of_one_process_score_everything_once(session, logged):
    names = (MODELS_DIR_VARIABLE, DEVICE_VARIABLE, CONTEXT_VARIABLE)
    values = [session.execute("select getvariable(?)", [name]).fetchall()[0][0] for name in names]

    def run(cursor) -> int:
        for name, value in zip(names, values, strict=True):
            set_variable(cursor, name, value)
        return model(None, cursor).read_all().num_rows

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(run, [session.cursor(), session.cursor()])) == [100, 100]
    assert cached(session) == 100


class CancellableCursor:
    """What dbt-duckdb hands to a model: a wrapper whose methods can be replaced."""

    def __init__(self, cursor) -> None:
        self._cursor = cursor

    def __getattr__(self, name):
        return getattr(self._cursor, name)


def test_a_cancelled_run_stops_after_a_chunk_and_says_what_is_kept(session, logged, monkeypatch):
    monkeypatch.setattr(dbt_model, "FIRST_CHUNK_ROWS", 10)
    monkeypatch.setattr(dbt_model, "CHUNK_SECONDS", 0.0)
    cursor = CancellableCursor(session)
    score_or_list, calls = Scorer.score_or_list, []

    def cancelling_score(self, batch, **options):
        calls.append(batch)
        if len(calls) == 3:
            cursor.interrupt()
        return score_or_list(self, batch, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Scorer, "score_or_list", cancelling_score)
        with pytest.raises(ScoringError, match="interrupted"):
            model(None, cursor)
    assert "are kept in churn_score_cache" in logged[-1]
    assert cached(session) == 30
    assert "interrupt" not in vars(cursor)
    assert model(None, cursor).read_all().num_rows == 100


def test_a_bundle_changed_while_it_is_loaded_is_refused(session, logged, monkeypatch):
    load = Scorer.load.__func__

    def load_and_spoil(cls, bundle, **options):
        scorer = load(cls, bundle, **options)
        path = bundle.directory / WEIGHTS_FILE
        path.write_bytes(path.read_bytes()[:-1] + b"?")
        return scorer

    directory = Path(
        session.execute("select getvariable(?)", [MODELS_DIR_VARIABLE]).fetchall()[0][0]
    )
    copy = directory.with_name(f"{directory.name}_spoilt")
    shutil.copytree(directory, copy)
    set_variable(session, MODELS_DIR_VARIABLE, str(copy))
    monkeypatch.setattr(Scorer, "load", classmethod(load_and_spoil))
    with pytest.raises(BundleIntegrityError, match=WEIGHTS_FILE):
        model(None, session)
    assert cached(session) == 0


def test_wide_rows_are_joined_in_batches(session, logged, monkeypatch):
    monkeypatch.setattr(score_cache, "BATCH_KEYS", 30)
    sizes = []

    class Watcher:
        def __init__(self, scorer: Scorer) -> None:
            self.bundle, self.tokens = scorer.bundle, scorer.tokens
            self.scorer = scorer

        def score_or_list(self, batch, **options):
            sizes.append(batch.num_rows)
            return self.scorer.score_or_list(batch, **options)

    def load(bundle, models_dir, *, device):
        return Watcher(Scorer.load(bundle, device=device))

    assert model(None, session, load_scorer=load).read_all().num_rows == 100
    assert sizes == [30, 30, 30, 10]


def test_inputs_are_counted_once_and_those_scored_not_again(session, logged):
    model(None, session)
    cache = cache_of(session)
    cache.clear()
    session.execute("update examples set input_hash = 'same' where user_id in ('u1', 'u2', 'u3')")
    session.execute("update examples set input_hash = null where user_id = 'u4'")
    assert cache.plan() == (98, 98)
    assert cache.count_missing() == 98
    session.execute("delete from examples where input_hash is null")
    model(None, session)
    assert cache.plan() == (97, 0)
    assert cache.count_missing() == 0
    session.execute("update examples set input_hash = 'new' where user_id = 'u5'")
    assert (cache.plan(), cache.count_missing()) == ((97, 1), 1)
    (batch,) = cache.read_missing(FEATURES)
    assert batch.column("input_hash").to_pylist() == ["new"]


def test_chunks_are_read_and_written_on_other_threads_than_the_model_runs_on(session, logged):
    seen = {}

    class Watcher:
        def __init__(self, scorer: Scorer) -> None:
            self.scorer, self.bundle = scorer, scorer.bundle

        def tokens(self, batch):
            seen["tokens"] = threading.get_ident()
            return self.scorer.tokens(batch)

        def score_or_list(self, batch, **options):
            seen["model"] = threading.get_ident()
            assert options["tokens"] is not None
            return self.scorer.score_or_list(batch, **options)

    def load(bundle, models_dir, *, device):
        return Watcher(Scorer.load(bundle, device=device))

    model(None, session, load_scorer=load)
    assert seen["model"] == threading.get_ident() != seen["tokens"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, duckdb.IOException])
def test_an_interruption_or_a_full_disk_ends_all_threads(session, logged, monkeypatch, error):
    monkeypatch.setattr(dbt_model, "FIRST_CHUNK_ROWS", 10)
    monkeypatch.setattr(dbt_model, "CHUNK_SECONDS", 0.0)
    calls = []

    def fail_at_the_third(owner, name):
        original = getattr(owner, name)

        def call(*args, **options):
            calls.append(name)
            if len(calls) == 3:
                raise error("disk full")
            return original(*args, **options)

        monkeypatch.setattr(owner, name, call)

    if error is KeyboardInterrupt:
        fail_at_the_third(Scorer, "score_or_list")
    else:
        fail_at_the_third(ScoreCache, "insert")
    before = threading.active_count()
    with pytest.raises(error):
        model(None, session)
    assert threading.active_count() == before
    kept = cached(session)
    assert kept in range(20, 100, 10)
    monkeypatch.undo()
    monkeypatch.setattr(dbt_model, "dbt_logger", lambda: logged.append)
    assert model(None, session).read_all().num_rows == 100


def test_a_cache_of_another_layout_is_replaced(session, logged):
    session.execute("create table churn_score_cache (input_hash varchar, score double)")
    assert model(None, session).read_all().num_rows == 100
    columns = session.execute("describe churn_score_cache").fetchall()
    assert [row[0] for row in columns] == CACHE_SCHEMA.names == list(SQL_TYPES)


def test_no_score_cutoff_means_no_input(session, logged):
    session.execute("delete from cutoffs")
    assert model(None, session).read_all().num_rows == 0


def test_scores_of_other_inputs_and_bundles_are_not_returned(session, logged):
    model(None, session)
    session.execute("delete from examples where user_id = 'u1'")
    session.execute("insert into churn_score_cache select * replace ('other' as bundle_id) "
                    "from churn_score_cache")  # fmt: skip
    result = model(None, session).read_all()
    assert result.num_rows == 99
    assert set(result.column("bundle_id").to_pylist()) != {"other"}


def test_clear_forgets_one_bundle(session, logged):
    model(None, session)
    session.execute("insert into churn_score_cache select * replace ('other' as bundle_id) "
                    "from churn_score_cache")  # fmt: skip
    cache = cache_of(session, "other")
    assert cache.plan() == (100, 0)
    cache.clear()
    assert cache.plan() == (100, 100)
    assert cached(session) == 100


def test_other_features_are_refused_before_anything_is_scored(session, logged):
    context = json.loads(
        session.execute(f"select getvariable('{CONTEXT_VARIABLE}')").fetchall()[0][0]
    )
    context["feature_names"] = ["order_count", "recency_days", "amount_sum"]
    set_variable(session, CONTEXT_VARIABLE, json.dumps(context))
    with pytest.raises(BundleMismatchError, match="another order"):
        model(None, session)


@pytest.mark.parametrize(
    ("name", "seen"),
    [(MODELS_DIR_VARIABLE, r"profiles\.yml"), (CONTEXT_VARIABLE, "pre-hook")],
)
def test_what_is_missing_in_the_session_is_named(session, name, seen):
    session.execute(f"reset variable {name}")
    with pytest.raises(SettingsError, match=seen):
        read_context(session)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_progress_is_told_every_few_seconds_with_the_time_left():
    clock, lines = Clock(), []
    progress = Progress(10_000, lines.append, clock=clock)
    clock.now += 4.9
    progress.add(1_000)
    assert lines == []
    clock.now += 0.1
    progress.add(1_000)
    assert lines == ["scored 2,000 of 10,000 rows, 400 rows/s, 20 s left"]
    clock.now += 4.9
    progress.add(10)
    assert len(lines) == 1
    clock.now += 100
    progress.finish()
    assert lines[-1] == "scored 2,010 rows in 1 min 50 s (18 rows/s)"


def test_nothing_of_ours_warns(session, logged):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model(None, session).read_all()
