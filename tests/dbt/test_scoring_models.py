"""int_inputs_scored, churn_scores and churn_scores_current, built by dbt with a real tiny model."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest
import yaml
from champion import forget_champion, newest_entry
from factories import model_settings, tiny_bundle

from churn_udf.bundle_store import open_bundle, set_champion
from churn_udf.contracts.bundle import FeatureSpec
from churn_udf.contracts.scores import input_schema
from churn_udf.scoring import Scorer
from churn_udf.warehouse.champion_scorers import forget_scorers

SCORING = "int_inputs_scored+"
NO_TESTS = ["--exclude-resource-type", "test", "unit_test"]
WITH_TESTS = ["--exclude-resource-type", "unit_test"]
USERS = [f"u{number:02d}" for number in range(12)]
SETTINGS = {"observation_days": 60, "eligibility_days": 60, "horizon_days": 10}


def purchases(users=USERS, *, late=()):
    """Purchases of users with rhythms of their own; u10 and u11 do the same things."""
    rows = [
        {
            "user_id": user,
            "event_type": "purchase",
            "event_ts": f"2024-02-{day:02d} 10:00:00",
            "amount": 10.0 + min(number, 10),
            "item_id": f"i{day}",
            "category": ["dairy", "bakery", "fruit"][day % 3],
        }
        for number, user in enumerate(users)
        for day in range(1, 28, 2 + min(number, 10))
    ]
    end = {"user_id": "end", "event_type": "purchase", "event_ts": "2024-03-01 09:00:00"}
    return [*rows, end, *late]


def feature_specs_of(project) -> list[FeatureSpec]:
    """The features as the package's YAML lists them."""
    path = project.project_dir / "models" / "marts" / "_examples__models.yml"
    models = yaml.safe_load(path.read_text(encoding="utf-8"))["models"]
    (examples,) = [model for model in models if model["name"] == "churn_examples"]
    groups = {
        column["name"]: (column.get("config") or {}).get("meta", {}).get("feature_group")
        for column in examples["columns"]
    }
    return [FeatureSpec(name=name, group=group) for name, group in groups.items() if group]


def promote(project, seed: int = 0, **settings):
    """Make a new tiny bundle the champion."""
    bundle = tiny_bundle(
        project.models_dir,
        feature_specs_of(project),
        model_settings(**{**SETTINGS, **settings}),
        seed=seed,
    )
    set_champion(project.models_dir, bundle.bundle_id, reason="test")
    return bundle


@pytest.fixture(scope="module")
def features_project(module_dbt_project):
    """The package built up to churn_examples, once for all tests of this file."""
    project = module_dbt_project
    project.vars = {f"churn__{name}": value for name, value in SETTINGS.items()}
    project.vars["churn__training_cutoffs"] = ["2024-02-15"]
    project.vars["churn__events_path"] = project.events_parquet(purchases())
    project.build(args=NO_TESTS)
    return project


@pytest.fixture
def project(dbt_project, features_project):
    """A copy of it without a champion."""
    forget_scorers()
    shutil.copy(features_project.database, dbt_project.database)
    dbt_project.vars = dict(features_project.vars)
    return dbt_project


@pytest.fixture
def scored(project):
    """A copy in which the first champion has scored."""
    project.bundle = promote(project)
    project.build(select=SCORING, args=NO_TESTS)
    return project


def all_scores(project):
    return project.query("select * from churn_scores order by all")


def leaked_tables(project):
    return project.query(
        "select table_name from duckdb_tables() where contains(table_name, '__dbt_')"
    )


def log_lines(capsys) -> str:
    captured = capsys.readouterr()
    return captured.out + captured.err


def test_before_the_first_champion_everything_builds_and_says_so(project, capsys):
    project.build(select=SCORING, args=WITH_TESTS)
    assert "no champion yet" in (said := log_lines(capsys))
    assert "churn-train run" in said
    for table in (
        *("int_inputs_scored", "churn_scores", "churn_scores_current"),
        *("int_inputs_unscorable", "churn_unscorable", "int_inputs_scored_by_shadows"),
        *("churn_score_movers", "churn_shadow_comparisons", "churn_shadow_movers"),
    ):
        assert project.query(f"select count(*) from {table}") == [(0,)]
    types = project.query(
        "select column_name, data_type from duckdb_columns() where table_name = 'int_inputs_scored'"
    )
    assert ("reason_effects", "DOUBLE[]") in types
    assert ("scored_at", "TIMESTAMP") in types


def test_every_user_at_the_score_cutoff_gets_a_score(project):
    bundle = promote(project)
    project.build(select=SCORING, args=WITH_TESTS)
    rows = project.query(
        "select user_id, cast(cutoff_date as varchar), bundle_id, why from churn_scores order by 1"
    )
    assert [row[:3] for row in rows] == [(u, "2024-03-01", bundle.bundle_id) for u in USERS]
    assert all(row[3] for row in rows)
    current = project.query("select user_id from churn_scores_current order by 1")
    assert [user for (user,) in current] == USERS


def test_equal_inputs_are_scored_once_and_alike(scored):
    assert scored.query("select count(*) from int_inputs_scored") == [(len(USERS) - 1,)]
    pair = scored.query(
        "select count(distinct churn_probability), count(distinct input_hash) "
        "from churn_scores where user_id in ('u10', 'u11')"
    )
    assert pair == [(1, 1)]


def test_python_model_sql_function_and_offline_agree(scored):
    names = scored.bundle.feature_names
    columns = ", ".join(input_schema(names).names)
    inputs = scored.table(f"select user_id, {columns} from churn_examples where is_score_cutoff")
    (batch,) = inputs.combine_chunks().to_batches()
    offline = Scorer.load(open_bundle(scored.bundle.directory), device="cpu").score_batch(batch)
    expected = dict(
        zip(
            batch.column("user_id").to_pylist(),
            offline.column("churn_probability").to_pylist(),
            strict=True,
        )
    )
    in_model = dict(scored.query("select user_id, churn_probability from churn_scores"))
    shown = scored.succeed(
        "show",
        args=[
            *("--limit", "-1", "--output", "json", "--inline"),
            "select user_id, {{ churn_scoring.churn_score('examples') }} as probability "
            "from {{ ref('churn_examples') }} as examples where is_score_cutoff",
        ],
    )
    table = shown.results[0].agate_table
    in_sql = {row["user_id"]: float(row["probability"]) for row in table.rows}
    assert set(expected) == set(in_model) == set(in_sql) == set(USERS)
    for user in USERS:
        assert in_model[user] == pytest.approx(expected[user], abs=1e-5)
        assert in_sql[user] == pytest.approx(expected[user], abs=1e-5)


def test_a_second_build_scores_nothing_and_changes_no_row(scored, capsys):
    before = scored.query("select rowid, * from churn_scores order by all")
    cache = scored.query("select rowid, * from churn_score_cache order by all")
    log_lines(capsys)
    for _ in range(2):
        scored.build(select=SCORING, args=NO_TESTS)
        assert "0 to score" in log_lines(capsys)
    assert scored.query("select rowid, * from churn_scores order by all") == before
    assert scored.query("select rowid, * from churn_score_cache order by all") == cache
    assert leaked_tables(scored) == []


def test_only_a_changed_input_is_scored_again(scored):
    before = dict(scored.query("select user_id, scored_at from churn_scores"))
    late = {"user_id": "u03", "event_type": "purchase", "event_ts": "2024-02-28 10:00:00"}
    scored.vars["churn__events_path"] = scored.events_parquet(
        purchases(late=[late]), "more.parquet"
    )
    scored.build(args=NO_TESTS)
    after = dict(scored.query("select user_id, scored_at from churn_scores"))
    assert {user for user in USERS if after[user] != before[user]} == {"u03"}
    assert scored.query("select count(*) from churn_score_cache") == [(len(USERS),)]
    scored.test(select="churn_scores churn_scores_current assert_every_example_scored_once")


def test_users_who_left_the_population_lose_their_score(scored):
    promote(scored, seed=1)
    scored.build(select=SCORING, args=NO_TESTS)
    assert len(all_scores(scored)) == 2 * len(USERS)
    gone = purchases(USERS[:-2])
    scored.vars["churn__events_path"] = scored.events_parquet(gone, "fewer.parquet")
    scored.build(args=NO_TESTS)
    users = scored.query("select distinct user_id from churn_scores order by 1")
    assert [user for (user,) in users] == USERS[:-2]
    assert scored.query("select count(*) from churn_scores_current") == [(len(USERS) - 2,)]
    scored.test(select="churn_scores churn_scores_current assert_every_example_scored_once")


def test_scores_of_earlier_cutoffs_stay(scored):
    before = all_scores(scored)
    moved = {"churn__score_cutoff_date": "2024-02-20"}
    scored.build(vars=moved, args=NO_TESTS)
    after = all_scores(scored)
    assert set(before) < set(after)
    newest = scored.query("select distinct cast(cutoff_date as varchar) from churn_scores_current")
    assert newest == [("2024-03-01",)]
    assert len(after) == len(before) + scored.query(
        "select count(*) from churn_examples where is_score_cutoff"
    )[0][0]  # fmt: skip


def test_a_new_champion_scores_beside_the_old_and_rollback_scores_nothing(scored, capsys):
    first, before = scored.bundle, all_scores(scored)
    second = promote(scored, seed=1)
    scored.build(select=SCORING, args=NO_TESTS)
    assert set(before) < set(all_scores(scored))
    champions = scored.query("select distinct bundle_id from churn_scores_current")
    assert champions == [(second.bundle_id,)]
    both = all_scores(scored)
    set_champion(scored.models_dir, first.bundle_id, reason="rollback")
    log_lines(capsys)
    scored.build(select=SCORING, args=NO_TESTS)
    assert "0 to score" in log_lines(capsys)
    assert all_scores(scored) == both
    champions = scored.query("select distinct bundle_id from churn_scores_current")
    assert champions == [(first.bundle_id,)]


def test_a_full_refresh_scores_anew_and_leaves_nothing_behind(scored):
    before = dict(scored.query("select user_id, scored_at from churn_scores"))
    values = scored.query("select user_id, churn_probability from churn_scores order by 1")
    scored.build(select=SCORING, args=[*NO_TESTS, "--full-refresh"])
    after = dict(scored.query("select user_id, scored_at from churn_scores"))
    assert all(after[user] > before[user] for user in USERS)
    assert scored.query("select user_id, churn_probability from churn_scores order by 1") == values
    assert scored.query("select count(*) from churn_score_cache") == [(len(USERS) - 1,)]
    assert leaked_tables(scored) == []


def test_an_empty_build_keeps_the_scores(scored):
    before = all_scores(scored)
    scored.run(args=["--empty"])
    assert all_scores(scored) == before


def test_a_champion_taken_away_leaves_the_scores(scored):
    before = all_scores(scored)
    forget_champion(scored.models_dir)
    scored.build(select=SCORING, args=NO_TESTS)
    assert all_scores(scored) == before
    assert scored.query("select count(*) from churn_scores_current") == [(0,)]


def spoil_manifest(project):
    path = project.bundle.directory / "thresholds.json"
    path.write_text(path.read_text().replace("0.5", "0.7"))


def spoil_bundle(project):
    shutil.rmtree(project.bundle.directory)


def spoil_registry(project):
    newest_entry(project.models_dir).write_text("{}")


def other_horizon(project):
    promote(project, seed=2, horizon_days=20)


def other_features(project):
    specs = feature_specs_of(project)[:-1]
    settings = model_settings(**SETTINGS)
    bundle = tiny_bundle(project.models_dir, specs, settings)
    set_champion(project.models_dir, bundle.bundle_id, reason="test")


@pytest.mark.parametrize(
    ("spoil", "seen", "command"),
    [
        (spoil_manifest, "sha256", "churn-train run"),
        (spoil_bundle, "no bundle at", "churn-train run"),
        (spoil_registry, "not an entry of the registry", "churn-train models"),
        (other_horizon, "horizon_days: bundle 20, warehouse 10", "churn-train run"),
        (other_features, "only in the warehouse", "churn-train run"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_an_unusable_bundle_stops_the_build_and_keeps_the_table(scored, spoil, seen, command):
    before = all_scores(scored)
    spoil(scored)
    message = scored.build_fails(select=SCORING, args=NO_TESTS)
    assert seen in message
    assert command in message
    assert all_scores(scored) == before
    assert leaked_tables(scored) == []


def test_vars_of_the_command_line_are_checked_against_the_bundle(scored):
    message = scored.build_fails(vars={"churn__horizon_days": 11}, args=NO_TESTS)
    assert "horizon_days: bundle 10, warehouse 11" in message


def test_examples_of_other_vars_than_the_run_are_refused(scored):
    promote(scored, seed=3, horizon_days=11)
    message = scored.build_fails(select=SCORING, vars={"churn__horizon_days": 11}, args=NO_TESTS)
    assert "built with other churn__ vars" in message


def test_a_profile_without_the_plugin_says_what_to_add(scored):
    path = scored.root / "profiles.yml"
    profile = yaml.safe_load(path.read_text())
    del profile["churn_scoring"]["outputs"]["dev"]["plugins"]
    path.write_text(yaml.safe_dump(profile))
    message = scored.build_fails(select=SCORING, args=NO_TESTS)
    assert "module: churn_udf.warehouse.duckdb_plugin" in message


SLOW_RUN = """
import sys, time
import churn_udf.scoring as scoring
import churn_udf.warehouse.dbt_model as dbt_model
from dbt.cli.main import cli

dbt_model.FIRST_CHUNK_ROWS, dbt_model.CHUNK_SECONDS = 2, 0.0
score_or_list = scoring.Scorer.score_or_list

calls = []

def slow(self, batch, **options):
    calls.append(batch.num_rows)
    print("chunk", len(calls), flush=True)
    time.sleep(0.5)
    return score_or_list(self, batch, **options)

scoring.Scorer.score_or_list = slow
cli(sys.argv[1:])
"""


def test_a_killed_run_keeps_what_it_scored_and_the_next_does_the_rest(scored, capsys):
    """kill -9 in mid-scoring of a second champion."""
    before = all_scores(scored)
    bundle = promote(scored, seed=4)
    command = [sys.executable, "-c", SLOW_RUN, "run", "-s", SCORING]
    command += ["--project-dir", str(scored.project_dir), "--profiles-dir", str(scored.root)]
    command += ["--target-path", str(scored.root / "target"), "--log-path", str(scored.root)]
    command += ["--vars", yaml.safe_dump(scored.vars, default_flow_style=True, width=10**6)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    for line in process.stdout:
        if line == "chunk 4\n":
            break
    process.kill()
    process.communicate()
    assert process.returncode == -9

    assert all_scores(scored) == before
    done = scored.query(
        f"select count(*) from churn_score_cache where bundle_id = '{bundle.bundle_id}'"
    )[0][0]
    total = len(USERS) - 1
    assert 4 <= done < total  # the third chunk may be in the writing
    log_lines(capsys)
    scored.build(select=SCORING, args=WITH_TESTS)
    assert f"{total} distinct inputs at the score cutoff, {total - done} to score" in log_lines(
        capsys
    )
    assert len(all_scores(scored)) == 2 * len(USERS)
    assert leaked_tables(scored) == []
