"""Warehouse access against a minimal dbt project, whose macros stand in for the package's."""

from __future__ import annotations

import datetime
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from churn_udf.errors import ChurnError, SnapshotSchemaError, TextVersionError
from trainer.data.export import export_snapshot
from trainer.data.snapshot import Snapshot
from trainer.data.warehouse import (
    Warehouse,
    WarehouseOptions,
    clean_dbt_message,
    parse_context,
)
from trainer.errors import WarehouseError

PROJECT = """
name: churn_scoring
config-version: 2
version: "1.0.0"
profile: churn
macro-paths: [macros]
flags: {send_anonymous_usage_stats: false}
"""
PROFILES = """
churn:
  target: dev
  outputs:
    dev:
      type: duckdb
      path: "{{ env_var('TEST_WAREHOUSE') }}"
      schema: main
      settings: {TimeZone: UTC}
      plugins:
        - module: churn_udf.warehouse.duckdb_plugin
          alias: churn
          config: {models_dir: some/models, lock_wait_seconds: 0}
    other: {type: duckdb, path: "nowhere/else.duckdb"}
"""
MACROS = """
{% macro churn_context() %}
  {% if var('churn__horizon_days', 14) is string %}
    {% do exceptions.raise_compiler_error(
      "churn__horizon_days: got x; allowed: a whole number; change it in --vars") %}
  {% endif %}
  {% set settings = {
    'observation_days': 365, 'eligibility_days': 90, 'gap_days': 0,
    'horizon_days': var('churn__horizon_days', 14), 'qualifying_event_types': ['purchase'],
    'max_visits': 16, 'max_words_per_visit': 4, 'max_reviews': 3, 'max_review_chars': 400,
    'text_version': var('text_version', 1), 'feature_version': 1} %}
  {% set relations = {} %}
  {% for name in ['churn_examples', 'int_cutoffs_spined', 'stg_churn__users'] %}
    {% do relations.update({name: '"' ~ target.schema ~ '"."' ~ name ~ '"'}) %}
  {% endfor %}
  {% do return(tojson({
    'settings': settings, 'relations': relations, 'project': project_name,
    'features': [{'name': 'amount_30d', 'group': 'spend', 'description': ' Spent. '}],
    'target': {'name': target.name}, 'invocation_id': 'x', 'dbt_version': dbt_version})) %}
{% endmacro %}
{% macro input_settings_hash() %}{% do return('h' ~ var('churn__horizon_days', 14)) %}{% endmacro %}
"""
EXAMPLES = """
create table churn_examples as
select
    'u' || range as user_id, date '2024-03-01' + cast(7 * (range % 3) as integer) as cutoff_date,
    'visit dairy' as behavior_text, '' as review_text_recent,
    cast(range as double) as amount_30d, range % 3 < 2 as is_label_mature,
    case when range % 3 < 2 then range % 2 = 0 end as is_churned, md5('' || range) as input_hash
from range(30)
"""
USERS = """
create table stg_churn__users as
select 'u' || range as user_id, '{"town": "t' || range % 2 || '", "age": null}' as profile_json,
    cast(range % 5 as double) as profile_field_count
from range(40)
"""
SPINE = """
create table int_cutoffs_spined as
select cutoff_date, 'h14' as settings_hash, cutoff_date = date '2024-03-15' as is_score_cutoff,
    cutoff_date < date '2024-03-15' as is_training_cutoff
from (select distinct cutoff_date from churn_examples)
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    (folder / "macros").mkdir()
    (folder / "dbt_project.yml").write_text(PROJECT)
    (folder / "profiles.yml").write_text(PROFILES)
    (folder / "macros" / "context.sql").write_text(MACROS)
    return folder


@pytest.fixture
def database(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No database yet, always at the same place, so that dbt need not be asked again."""
    path = project / "warehouse.duckdb"
    path.unlink(missing_ok=True)
    monkeypatch.setenv("TEST_WAREHOUSE", str(path))
    monkeypatch.setenv("DBT_LOG_PATH", str(project / "logs"))
    return path


@pytest.fixture(scope="module")
def resolved(project: Path) -> Iterator[Warehouse]:
    """One warehouse for all tests with plain options: dbt takes seconds to answer."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TEST_WAREHOUSE", str(project / "warehouse.duckdb"))
        patch.setenv("DBT_LOG_PATH", str(project / "logs"))
        warehouse = open_warehouse(project)
        assert warehouse.context.settings_hash == "h14"
        yield warehouse


def fill(database: Path, *statements: str) -> None:
    with duckdb.connect(str(database)) as connection:
        for statement in (EXAMPLES, SPINE, USERS, *statements):
            connection.execute(statement)


def open_warehouse(project: Path, **options: str) -> Warehouse:
    return Warehouse(WarehouseOptions(project_dir=project, profiles_dir=project, **options))


def test_examples_become_a_snapshot(resolved: Warehouse, database: Path, tmp_path: Path) -> None:
    fill(database)
    snapshot = export_snapshot(resolved, tmp_path / "snapshots")
    assert snapshot.num_rows == 30
    keys = list(
        zip(
            snapshot.table.column("cutoff_date").to_pylist(),
            snapshot.table.column("user_id").to_pylist(),
            strict=True,
        )
    )
    assert keys == sorted(keys)
    assert snapshot.features[0].description == "Spent."
    assert snapshot.settings["horizon_days"] == 14
    assert snapshot.document["score_cutoff_date"] == "2024-03-15"
    assert snapshot.document["provenance"]["target"] == {"name": "dev"}
    assert [cutoff["mature_rows"] for cutoff in snapshot.document["cutoffs"]] == [10, 10, 0]
    assert snapshot.profiles.column("user_id").to_pylist() == sorted(
        f"u{index}" for index in range(30) if index % 5
    )
    assert snapshot.profile_values["town"]["u7"] == "t1"
    assert snapshot.profile_values["age"] == {}
    again = export_snapshot(resolved, tmp_path / "snapshots")
    assert again.snapshot_id == snapshot.snapshot_id
    with duckdb.connect(str(database)) as connection:  # the file was released
        connection.execute("update churn_examples set amount_30d = amount_30d + 1")
    assert export_snapshot(resolved, tmp_path / "snapshots").snapshot_id != snapshot.snapshot_id
    assert resolved.models_dir() == Path("some/models")


def test_scored_cutoffs_before_the_oldest_training_cutoff_stay_out(
    resolved: Warehouse, database: Path, tmp_path: Path
) -> None:
    only_second = "update int_cutoffs_spined set is_training_cutoff = cutoff_date = '2024-03-08'"
    fill(database, only_second)
    snapshot = export_snapshot(resolved, tmp_path / "snapshots")
    kept = {datetime.date(2024, 3, 8), datetime.date(2024, 3, 15)}
    assert set(snapshot.table.column("cutoff_date").to_pylist()) == kept

    # Without any training cutoff what was scored is all there is to learn from.
    with duckdb.connect(str(database)) as connection:
        connection.execute("update int_cutoffs_spined set is_training_cutoff = false")
    every = export_snapshot(resolved, tmp_path / "snapshots")
    assert every.num_rows == 30


def test_rows_after_the_score_cutoff_stay_out(
    resolved: Warehouse, database: Path, tmp_path: Path
) -> None:
    fill(database, "update int_cutoffs_spined set is_score_cutoff = cutoff_date = '2024-03-08'")
    snapshot = export_snapshot(resolved, tmp_path / "snapshots")
    assert snapshot.num_rows == 20
    assert snapshot.cutoff_dates.max() == datetime.date(2024, 3, 8)


@pytest.mark.parametrize(
    ("statement", "error", "message"),
    [
        pytest.param("drop table churn_examples", WarehouseError, "dbt build", id="no-table"),
        pytest.param("drop table int_cutoffs_spined", WarehouseError, "dbt build", id="no-spine"),
        pytest.param(
            "alter table churn_examples drop amount_30d",
            WarehouseError,
            "another release",
            id="no-feature",
        ),
        pytest.param(
            "update int_cutoffs_spined set settings_hash = 'other'",
            WarehouseError,
            "other settings than the vars in use",
            id="other-vars",
        ),
        pytest.param(
            "update int_cutoffs_spined set is_score_cutoff = true",
            WarehouseError,
            "3 score cutoffs",
            id="three-score-cutoffs",
        ),
        pytest.param("delete from churn_examples", SnapshotSchemaError, "no row", id="empty"),
        pytest.param(
            "update churn_examples set user_id = null where user_id = 'u3'",
            SnapshotSchemaError,
            "'user_id' has 1 nulls",
            id="null-user",
        ),
        pytest.param(
            "update churn_examples set amount_30d = 'nan'::double where user_id = 'u1'",
            None,
            "",
            id="nan-is-unknown",
        ),
        pytest.param(
            "update churn_examples set amount_30d = 'inf'::double where user_id = 'u1'",
            SnapshotSchemaError,
            "infinite",
            id="infinite",
        ),
        pytest.param(
            "alter table churn_examples alter amount_30d type varchar using 'many'",
            SnapshotSchemaError,
            "'amount_30d' is string",
            id="text-feature",
        ),
    ],
)
def test_bad_tables_are_a_clear_error(
    resolved: Warehouse,
    database: Path,
    tmp_path: Path,
    statement: str,
    error: type[ChurnError] | None,
    message: str,
) -> None:
    fill(database, statement)
    if error is None:
        assert export_snapshot(resolved, tmp_path / "snapshots").num_rows == 30
        return
    with pytest.raises(error, match=message):
        export_snapshot(resolved, tmp_path / "snapshots")
    assert not list((tmp_path / "snapshots").glob("*"))


def test_missing_database_is_not_made(resolved: Warehouse, database: Path, tmp_path: Path) -> None:
    with pytest.raises(WarehouseError, match=r"no warehouse at .* run `dbt build`"):
        export_snapshot(resolved, tmp_path)
    assert not database.exists()


def test_file_that_is_no_database_is_a_clear_error(
    resolved: Warehouse, database: Path, tmp_path: Path
) -> None:
    database.write_bytes(b"not a database at all" * 1000)
    with pytest.raises(WarehouseError, match=r"warehouse\.duckdb"):
        export_snapshot(resolved, tmp_path)


def test_locked_database_names_the_remedy(
    resolved: Warehouse, database: Path, tmp_path: Path
) -> None:
    fill(database)
    code = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print('open', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(database)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "open\n"
        with pytest.raises(WarehouseError, match=r"has it open.* run again"):
            export_snapshot(resolved, tmp_path)
        other.communicate("\n")


def test_other_vars_and_targets_reach_dbt(project: Path, database: Path) -> None:
    context = open_warehouse(project, vars="{churn__horizon_days: 28}").context
    assert (context.model_settings.horizon_days, context.settings_hash) == (28, "h28")
    with (
        pytest.raises(WarehouseError, match=r"no warehouse at .*else\.duckdb"),
        open_warehouse(project, target="other").cursor(),
    ):
        pass


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"vars": "{churn__horizon_days: x}"}, "churn__horizon_days: got x; allowed"),
        ({"vars": "{broken"}, "not valid YAML"),
        ({"target": "nope"}, "nope"),
    ],
    ids=["bad-var", "bad-yaml", "bad-target"],
)
def test_what_dbt_refuses_is_one_line(
    project: Path, database: Path, options: dict[str, str], message: str
) -> None:
    with pytest.raises(WarehouseError, match=message) as caught:
        _ = open_warehouse(project, **options).context
    assert "\n" not in str(caught.value)


def test_folder_without_project_is_a_clear_error(tmp_path: Path, database: Path) -> None:
    with pytest.raises(WarehouseError, match="dbt cannot compile"):
        _ = open_warehouse(tmp_path).context


def test_other_text_version_is_refused(project: Path, database: Path) -> None:
    with pytest.raises(TextVersionError, match="text version 2"):
        _ = open_warehouse(project, vars="{text_version: 2}").context


def test_other_context_is_refused() -> None:
    with pytest.raises(WarehouseError, match="same release"):
        parse_context('{"context": {}, "settings_hash": "x"}')


def test_macro_trace_of_dbt_is_left_out() -> None:
    message = """Compilation Error in sql_operation inline_query (from remote system.sql)
      churn__x: got 1; allowed: 2

      > in macro validate_churn_vars (macros/x.sql)
      > called by macro churn_context (macros/y.sql)"""
    assert clean_dbt_message(message) == "churn__x: got 1; allowed: 2"


def test_snapshot_opens_without_the_warehouse(
    resolved: Warehouse, database: Path, tmp_path: Path
) -> None:
    fill(database)
    path = export_snapshot(resolved, tmp_path / "snapshots").path
    database.unlink()
    assert Snapshot.open(path).num_rows == 30
