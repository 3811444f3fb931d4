"""Relations of a DuckDB connection published as Parquet files."""

from __future__ import annotations

import duckdb
import pytest

from churn_udf.errors import PublishError, SettingsError
from churn_udf.publishing import read_published
from churn_udf.warehouse import publish_model
from churn_udf.warehouse.duckdb_plugin import Plugin
from churn_udf.warehouse.publish_model import publish_relations

RELATIONS = {"churn_scores": "main.scores", "churn_scores_current": '"main"."current scores"'}


@pytest.fixture
def connection():
    with duckdb.connect() as connection:
        connection.execute("create table scores (user_id text, bundle_id text, cutoff_date date)")
        connection.execute(
            "insert into scores values ('u2', 'b1', '2026-01-01'), ('u1', 'b1', '2026-01-01'), "
            "('u1', 'b0', '2025-01-01')"
        )
        connection.execute(
            "create view \"current scores\" as from scores where cutoff_date = '2026-01-01'"
        )
        yield connection


def test_files_hold_the_rows_in_order(connection, tmp_path):
    current, is_new = publish_relations(connection, RELATIONS, tmp_path / "it's")
    assert is_new
    assert (current.bundle_id, current.cutoff_date) == ("b1", "2026-01-01")
    rows = duckdb.read_parquet(str(tmp_path / "it's" / "current" / "churn_scores.parquet"))
    assert [row[:2] for row in rows.fetchall()] == [("u1", "b0"), ("u1", "b1"), ("u2", "b1")]
    assert rows.types == connection.table("scores").types
    assert current.tables["churn_scores"].rows == 3
    assert current.tables["churn_scores_current"].rows == 2


@pytest.mark.parametrize(
    ("change", "is_new"),
    [
        ("create or replace table scores as from scores order by user_id", False),
        ("update scores set bundle_id = 'b2' where user_id = 'u2'", True),
        ("insert into scores values (null, null, null)", True),
        ("insert into scores from scores where bundle_id = 'b0'", True),
        ("alter table scores alter bundle_id type varchar[] using [bundle_id]", True),
        ("alter table scores rename user_id to customer_id", True),
    ],
    ids=["order", "value", "null row", "copy of a row", "type", "name"],
)
def test_a_version_is_new_when_content_is(connection, tmp_path, change, is_new):
    if "alter" in change:
        connection.execute('create or replace table "current scores_" as from "current scores"')
        relations = {**RELATIONS, "churn_scores_current": '"current scores_"'}
        connection.execute('drop view "current scores"')
    else:
        relations = RELATIONS
    publish_relations(connection, relations, tmp_path)
    connection.execute(change)
    assert publish_relations(connection, relations, tmp_path)[1] is is_new


def test_empty_tables_are_published_with_their_columns(connection, tmp_path):
    connection.execute("delete from scores")
    current, _ = publish_relations(connection, RELATIONS, tmp_path)
    assert (current.bundle_id, current.cutoff_date) == (None, None)
    rows = duckdb.read_parquet(str(current.tables["churn_scores"].path))
    assert rows.columns == ["user_id", "bundle_id", "cutoff_date"]
    assert rows.fetchall() == []
    assert publish_relations(connection, RELATIONS, tmp_path)[1] is False


def test_many_rows_need_little_memory(tmp_path):
    """300,000 rows of some 150 bytes are sorted and written within 60 MB."""
    with duckdb.connect(config={"threads": 2, "memory_limit": "60MB"}) as connection:
        connection.execute(f"set temp_directory = '{tmp_path / 'spill'}'")
        connection.execute(
            "create view scores as select hash(range)::text as user_id, 'b' as bundle_id, "
            "date '2026-01-01' as cutoff_date, repeat(md5(range::text), 4) as why "
            "from range(300000)"
        )
        relations = dict.fromkeys(RELATIONS, "scores")
        current, _ = publish_relations(connection, relations, tmp_path / "published")
    for table in current.tables.values():
        users = duckdb.read_parquet(str(table.path)).project("user_id").fetchall()
        assert len(users) == table.rows == 300_000
        assert users == sorted(users)


def test_what_duckdb_cannot_write_leaves_the_old_version(connection, tmp_path):
    old, _ = publish_relations(connection, RELATIONS, tmp_path)
    connection.execute("create table broken as select 'x' as why, * from scores")
    connection.execute("create view late as select error('disk ' || why) as why, * from broken")
    with pytest.raises(PublishError, match=r"disk x.*readers keep.*publish_dir: false"):
        publish_relations(connection, {**RELATIONS, "more": "late"}, tmp_path)
    assert read_published(tmp_path) == old
    assert [path.name for path in (tmp_path / "versions").iterdir()] == [old.version]
    assert publish_relations(connection, RELATIONS, tmp_path)[1] is False, "cursor still usable"


def test_the_model_without_its_hook_is_refused(connection):
    with pytest.raises(SettingsError, match=r"pre-hook.*profiles\.yml"):
        publish_model.model(None, connection)


class Credentials:
    def __init__(self, path: str) -> None:
        self.path = path
        self.settings = {}


@pytest.mark.parametrize(
    ("path", "config", "expected"),
    [
        ("data/churn.duckdb", {}, "data/churn_published"),
        ("churn.duckdb", {"publish_dir": "bi"}, "bi"),
        ("churn.duckdb", {"publish_dir": False}, None),
        (":memory:", {}, None),
        ("md:churn", {}, None),
        (":memory:", {"publish_dir": "bi"}, "bi"),
    ],
    ids=["beside the file", "set", "off", "memory", "motherduck", "memory and set"],
)
def test_where_tables_are_published(path, config, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plugin = Plugin("churn", {"models_dir": "m", **config}, credentials=Credentials(path))
    assert plugin.publish_dir == (expected and tmp_path / expected)


@pytest.mark.parametrize(
    ("config", "seen"),
    [
        ({"publish_dir": ""}, "publish_dir ''"),
        ({"publish_dir": True}, "publish_dir True"),
        ({"publish_keep": 0}, "publish_keep 0"),
        ({"publish_keep": "3"}, "publish_keep '3'"),
        ({"publish_keep": True}, "publish_keep True"),
    ],
    ids=["empty", "true", "none kept", "text", "yes"],
)
def test_the_plugin_checks_where_and_how_many(config, seen):
    with pytest.raises(SettingsError, match=seen):
        Plugin("churn", {"models_dir": "m", **config})
