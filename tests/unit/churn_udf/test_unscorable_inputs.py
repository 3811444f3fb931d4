"""Inputs that cannot be scored: noted, counted, and tried again only when they change."""

import datetime
import json

import duckdb
import pyarrow as pa
import pytest
from factories import input_batch, tiny_bundle
from scoring_world import scoring_context

from churn_udf.bundle_store import set_champion
from churn_udf.errors import ScoringError
from churn_udf.scoring import Scorer
from churn_udf.warehouse import CONTEXT_VARIABLE, DEVICE_VARIABLE, MODELS_DIR_VARIABLE, dbt_model
from churn_udf.warehouse.champion_scorers import forget_scorers
from churn_udf.warehouse.dbt_model import model, unscorable_model
from churn_udf.warehouse.unscorable_inputs import (
    SQL_TYPES,
    UNSCORABLE_INPUT_SCHEMA,
    UnscorableInputs,
)

FEATURES = ("recency_days", "order_count", "amount_sum")
CUTOFF = datetime.date(2024, 3, 1)
USERS = 30
BROKEN = {
    "u1": "amount_sum = 'inf'",
    "u2": "behavior_text = null",
    "u3": "input_hash = null",
    "u4": "input_hash = null, amount_sum = '-inf'",
    "u5": "order_count = '-inf', review_text_recent = null",
}


@pytest.fixture(scope="module")
def models_dir(tmp_path_factory):
    directory = tmp_path_factory.mktemp("models")
    set_champion(directory, tiny_bundle(directory, FEATURES).bundle_id, reason="test")
    return directory


@pytest.fixture
def session(tmp_path, models_dir):
    """A database with inputs, some broken, and what plugin and hook leave."""
    forget_scorers()
    with duckdb.connect(str(tmp_path / "test.duckdb")) as session:
        session.register("inputs", pa.Table.from_batches([input_batch(USERS, FEATURES)]))
        session.execute(
            "create table examples as select 'u' || (row_number() over () - 1) as user_id, "
            f"date '{CUTOFF}' as cutoff_date, true as is_score_cutoff, * from inputs"
        )
        session.execute(
            f"create table cutoffs as select date '{CUTOFF}' as cutoff_date, "
            "true as is_score_cutoff, 'h' as settings_hash"
        )
        for name, value in ((MODELS_DIR_VARIABLE, str(models_dir)), (DEVICE_VARIABLE, "cpu")):
            session.execute(f"set variable {name} = ?", [value])
        tell(session)
        for user, change in BROKEN.items():
            session.execute(f"update examples set {change} where user_id = '{user}'")
        yield session


def tell(session, **changes) -> None:
    """Leave the context as the pre-hook does."""
    context = scoring_context(**changes)
    session.execute(f"set variable {CONTEXT_VARIABLE} = ?", [json.dumps(context)])


@pytest.fixture
def logged(monkeypatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(dbt_model, "dbt_logger", lambda: lines.append)
    return lines


@pytest.fixture
def warned(monkeypatch, logged) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(dbt_model, "warn", lines.append)
    return lines


@pytest.fixture
def looked_at(monkeypatch) -> list[str | None]:
    """Hashes of all rows that are given to the scorer."""
    hashes: list[str | None] = []
    score_or_list = Scorer.score_or_list

    def watch(self, batch, **options):
        hashes.extend(batch.column("input_hash").to_pylist())
        return score_or_list(self, batch, **options)

    monkeypatch.setattr(Scorer, "score_or_list", watch)
    return hashes


def rows(session, sql: str) -> list[tuple]:
    return session.cursor().execute(sql).fetchall()


def noted(session) -> list[tuple]:
    return rows(session, "select input_hash, reason from churn_unscorable_inputs order by all")


NOTED = [
    ("hash-0-1", "infinite_feature"),
    ("hash-0-2", "null_text"),
    ("hash-0-5", "infinite_feature"),
    ("hash-0-5", "null_text"),
    (None, "null_input_hash"),
]


def test_the_rest_is_scored_and_scored_plus_unscorable_is_everyone(session, warned):
    result = model(None, session).read_all()
    assert noted(session) == NOTED
    scored = set(result.column("input_hash").to_pylist())
    assert scored == {f"hash-0-{row}" for row in range(USERS) if f"u{row}" not in BROKEN}
    assert len(scored) + len(BROKEN) == USERS
    assert warned == [
        f"5 of {USERS} rows could not be scored (2 infinite_feature, 2 null_input_hash, "
        "2 null_text): see churn_unscorable"
    ]


def test_the_second_model_returns_what_the_first_noted(session, warned):
    model(None, session).read_all()
    listed = unscorable_model(None, session).read_all()
    assert listed.schema.names == UNSCORABLE_INPUT_SCHEMA.names == list(SQL_TYPES)
    assert listed.schema.types == UNSCORABLE_INPUT_SCHEMA.types
    found = listed.select(["input_hash", "reason"]).to_pylist()
    assert sorted((str(row["input_hash"]), row["reason"]) for row in found) == sorted(
        (str(input_hash), reason) for input_hash, reason in NOTED
    )


def test_what_could_not_be_scored_is_not_tried_again_but_told_again(session, warned, looked_at):
    model(None, session).read_all()
    first = noted(session)
    looked_at.clear()
    assert model(None, session).read_all().num_rows == USERS - len(BROKEN)
    assert looked_at == []
    assert noted(session) == first
    assert len(warned) == 2
    assert warned[0] == warned[1]


def test_a_changed_input_is_tried_again_and_leaves_the_list(session, warned, looked_at):
    model(None, session).read_all()
    looked_at.clear()
    session.execute(
        "update examples set amount_sum = 1, input_hash = 'mended' where user_id = 'u1'"
    )
    result = model(None, session).read_all()
    assert looked_at == ["mended"]
    assert "mended" in result.column("input_hash").to_pylist()
    assert noted(session) == NOTED[1:]
    assert warned[-1].startswith(f"4 of {USERS} rows")


def test_users_who_left_leave_nothing_behind(session, warned):
    model(None, session).read_all()
    session.execute("delete from examples where user_id in ('u1', 'u2', 'u3', 'u5')")
    model(None, session).read_all()
    assert noted(session) == [(None, "null_input_hash")]
    session.execute("delete from examples where user_id = 'u4'")
    model(None, session).read_all()
    assert noted(session) == []
    assert len(warned) == 2


def test_another_champion_and_a_full_refresh_try_all_again(session, warned, looked_at, tmp_path):
    model(None, session).read_all()
    looked_at.clear()
    session.execute(f"set variable {MODELS_DIR_VARIABLE} = '{tmp_path}'")
    other = tiny_bundle(tmp_path, FEATURES, seed=1)
    set_champion(tmp_path, other.bundle_id, reason="test")
    model(None, session).read_all()
    assert len(looked_at) == USERS - 1  # the two without hash are one
    assert noted(session) == NOTED
    bundles = rows(session, "select distinct bundle_id from churn_unscorable_inputs")
    assert bundles == [(other.bundle_id,)]
    looked_at.clear()
    tell(session, is_full_refresh=True)
    model(None, session).read_all()
    assert len(looked_at) == USERS - 1
    assert noted(session) == NOTED


def test_no_champion_means_an_empty_list(session, warned, models_dir, tmp_path):
    model(None, session).read_all()
    assert noted(session)
    session.execute(f"set variable {MODELS_DIR_VARIABLE} = '{tmp_path}'")
    assert model(None, session).read_all().num_rows == 0
    assert unscorable_model(None, session).read_all().num_rows == 0
    assert len(warned) == 1


def test_fail_keeps_the_scores_and_says_how_many_and_which(session, warned, looked_at):
    tell(session, unscorable_rows="fail")
    with pytest.raises(ScoringError) as caught:
        model(None, session)
    message = str(caught.value)
    assert message.startswith(f"5 of {USERS} rows could not be scored (2 infinite_feature, ")
    assert "user 'u1': infinite_feature, column 'amount_sum': got inf; allowed: " in message
    assert "user 'u3': null_input_hash" in message
    assert "churn_unscorable_inputs" in message
    assert "churn__unscorable_rows: warn" in message
    assert rows(session, "select count(*) from churn_score_cache") == [(USERS - len(BROKEN),)]
    looked_at.clear()
    tell(session)
    assert model(None, session).read_all().num_rows == USERS - len(BROKEN)
    assert looked_at == []
    assert len(warned) == 1


def test_the_error_names_only_the_first(session, warned):
    session.execute("update examples set amount_sum = 'inf'")
    tell(session, unscorable_rows="fail")
    with pytest.raises(ScoringError, match=f"^{USERS} of {USERS} rows") as caught:
        model(None, session)
    assert str(caught.value).count("user 'u") == 5


def test_when_nothing_can_be_scored_nothing_is_published(session, warned):
    session.execute("update examples set amount_sum = 'inf'")
    assert model(None, session).read_all().num_rows == 0
    assert warned[0].startswith(f"{USERS} of {USERS} rows")


def test_rows_of_nobody_are_not_scored_and_counted(session, warned, looked_at):
    for user in BROKEN:
        session.execute(f"delete from examples where user_id = '{user}'")
    session.execute("update examples set user_id = null where user_id in ('u10', 'u11')")
    total = USERS - len(BROKEN)
    assert model(None, session).read_all().num_rows == total - 2
    assert "hash-0-10" not in looked_at
    assert warned == [
        f"2 of {total} rows could not be scored (2 null_user_id): see churn_unscorable"
    ]
    tell(session, unscorable_rows="fail")
    with pytest.raises(ScoringError, match="user None: null_user_id, column 'user_id': got null"):
        model(None, session)


def test_all_sound_means_no_warning(session, warned):
    for user in BROKEN:
        session.execute(f"delete from examples where user_id = '{user}'")
    model(None, session).read_all()
    assert warned == []


def test_chunks_are_noted_as_they_are_scored(session, warned, monkeypatch):
    """A run that breaks off has noted the bad rows of the chunks before."""
    monkeypatch.setattr(dbt_model, "FIRST_CHUNK_ROWS", 10)
    monkeypatch.setattr(dbt_model, "CHUNK_SECONDS", 0.0)
    score_or_list, calls = Scorer.score_or_list, []

    def break_down(self, batch, **options):
        calls.append(batch.num_rows)
        if len(calls) == 3:
            raise ScoringError("the device is gone")
        return score_or_list(self, batch, **options)

    monkeypatch.setattr(Scorer, "score_or_list", break_down)
    with pytest.raises(ScoringError, match="device is gone"):
        model(None, session)
    kept = rows(session, "select count(*) from churn_score_cache")[0][0]
    listed = len({input_hash for input_hash, _ in noted(session)})
    assert kept + listed == 20
    model(None, session).read_all()
    assert sum(calls[3:]) == USERS - 1 - 20
    assert noted(session) == NOTED


def test_a_table_of_another_layout_is_replaced(session, warned):
    session.execute("create table churn_unscorable_inputs (input_hash varchar, why varchar)")
    model(None, session).read_all()
    assert noted(session) == NOTED


def test_works_while_dbt_holds_a_transaction_with_writes(session, warned):
    session.execute("begin transaction")
    session.execute("create table of_dbt as select 1 as a")
    session.execute("select count(*) from examples").fetchall()
    model(None, session).read_all()
    session.execute("rollback")
    assert noted(session) == NOTED


def test_inputs_of_other_cutoffs_are_not_counted(session, warned):
    session.execute("insert into examples select * replace (date '2024-02-01' as cutoff_date) "
                    "from examples")  # fmt: skip
    model(None, session).read_all()
    assert warned[0].startswith(f"5 of {USERS} rows")
    table = UnscorableInputs(
        session, relation="churn_unscorable_inputs", examples="examples", cutoff_date=None
    )
    assert table.count() is None
