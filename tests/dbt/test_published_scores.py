"""int_scores_published: the score marts as files that stay readable while a run writes."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest
from champion import forget_champion, promote_tiny

from churn_udf.publishing import read_published
from churn_udf.warehouse.champion_scorers import forget_scorers

SCORING = "int_inputs_scored+"
NO_TESTS = ["--exclude-resource-type", "test", "unit_test"]
SETTINGS = {"observation_days": 60, "eligibility_days": 60, "horizon_days": 10}
MARTS = ("churn_scores", "churn_scores_current")
OUTCOMES = ("churn_score_outcomes", "churn_calibration_bins", "churn_model_performance")
OTHERS = (
    *OUTCOMES,
    "churn_base_rate_changes",
    "churn_champions",
    "churn_event_volumes",
    "churn_model_log",
    "churn_models",
    "churn_score_drift",
    "churn_score_movers",
    "churn_shadow_comparisons",
    "churn_shadow_movers",
    "churn_unscorable",
)
EVENTS = [
    {
        "user_id": f"u{number}",
        "event_type": "purchase",
        "event_ts": f"2024-02-{day:02d} 10:00:00",
        "amount": 10.0 + number,
    }
    for number in range(5)
    for day in range(1, 28, 2 + number)
]
SAID = "user_id, cutoff_date, bundle_id, churn_probability, risk_tier, is_flagged, scored_at"
READ_BOTH_WAYS = """
import sys, duckdb
database, parquet = sys.argv[1:]
try:
    duckdb.connect(database, read_only=True)
    print("opened")
except duckdb.IOException:
    print("locked")
print(duckdb.connect().execute("select count(*) from read_parquet(?)", [parquet]).fetchone()[0])
"""


def publish_dir(project):
    return project.root / "warehouse_published"


def published(project, mart: str):
    """Return the rows of a mart as readers of the files see them."""
    path = publish_dir(project) / "current" / f"{mart}.parquet"
    return project.query(f"select * from '{path}' order by all")


@pytest.fixture(scope="module")
def features_project(module_dbt_project):
    """The package built without a champion, once for all tests of this file."""
    project = module_dbt_project
    project.vars = {f"churn__{name}": value for name, value in SETTINGS.items()}
    project.vars["churn__training_cutoffs"] = ["2024-02-15"]
    project.vars["churn__events_path"] = project.events_parquet(EVENTS)
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
    project.bundle = promote_tiny(project)
    project.build(select=SCORING, args=NO_TESTS)
    return project


def test_nothing_is_published_before_the_first_champion(features_project):
    assert features_project.query("select count(*) from int_scores_published") == [(0,)]
    assert not publish_dir(features_project).exists()


def test_files_are_the_marts(scored):
    for mart in MARTS:
        assert published(scored, mart) == scored.query(f"from {mart} order by all")
        assert len(published(scored, mart)) == 5
    current = read_published(publish_dir(scored))
    assert (current.bundle_id, current.cutoff_date) == (scored.bundle.bundle_id, "2024-02-27")
    rows = scored.query(
        "select table_name, version, path, sha256, row_count, byte_count "
        "from int_scores_published order by 1"
    )
    assert rows == [
        (name, current.version, str(table.path), table.sha256, table.rows, table.bytes)
        for name, table in sorted(current.tables.items())
    ]
    assert {row[0] for row in rows} == {*MARTS, *OTHERS}
    for other in OTHERS:
        assert published(scored, other) == scored.query(f"from {other} order by all")
    assert published(scored, "churn_event_volumes")
    assert not any(published(scored, outcomes) for outcomes in OUTCOMES)


def test_files_are_read_while_a_run_writes(scored, monkeypatch):
    """Another process reads in the middle of a run, which holds the DuckDB file."""
    told: list[str] = []

    def look(event) -> None:
        if event.info.name == "LogStartLine" and "churn_scores " in event.info.msg:
            path = publish_dir(scored) / "current" / "churn_scores.parquet"
            command = [sys.executable, "-c", READ_BOTH_WAYS, str(scored.database), str(path)]
            done = subprocess.run(command, capture_output=True, text=True)
            told.extend([*done.stdout.split(), *done.stderr.splitlines()])

    monkeypatch.setattr(scored, "_collect_warning", look)
    promote_tiny(scored, seed=1)
    scored.build(select=SCORING, args=NO_TESTS)
    assert told == ["locked", "5"]
    assert len(published(scored, "churn_scores")) == 10


def test_a_second_build_changes_nothing(scored):
    pointer = publish_dir(scored) / "current.json"
    before = pointer.read_bytes(), pointer.stat().st_mtime_ns
    rows = scored.query("from int_scores_published order by all")
    scored.build(select=SCORING)
    assert (pointer.read_bytes(), pointer.stat().st_mtime_ns) == before
    assert scored.query("from int_scores_published order by all") == rows
    assert len(list((publish_dir(scored) / "versions").iterdir())) == 1


def test_a_new_model_is_a_new_version(scored):
    old = read_published(publish_dir(scored))
    bundle = promote_tiny(scored, seed=1)
    scored.build(select=SCORING, args=NO_TESTS)
    new = read_published(publish_dir(scored))
    assert new.version > old.version
    assert new.bundle_id == bundle.bundle_id
    assert old.tables["churn_scores"].path.exists(), "a reader may still have it open"


def test_a_run_that_fails_publishes_nothing(scored):
    before = read_published(publish_dir(scored))
    bundle = promote_tiny(scored, seed=1)
    (bundle.directory / "extra.txt").write_text("x")
    assert "not in the manifest" in scored.build_fails(select=SCORING, args=NO_TESTS)
    assert read_published(publish_dir(scored)) == before


def test_scores_that_fail_their_tests_are_not_published(scored):
    before = read_published(publish_dir(scored))
    scored.execute("update churn_scores set why = null where user_id = 'u1'")
    message = scored.build_fails(
        select="churn_scores+", args=["--exclude-resource-type", "unit_test"]
    )
    assert "not_null_churn_scores_why" in message
    assert read_published(publish_dir(scored)) == before


def test_empty_builds_and_a_lost_champion_publish_nothing(scored, capsys):
    before = read_published(publish_dir(scored))
    scored.build(select=SCORING, args=["--empty", *NO_TESTS])
    assert read_published(publish_dir(scored)) == before
    forget_champion(scored.models_dir)
    scored.build(select=SCORING, args=NO_TESTS)
    assert "nothing to publish" in capsys.readouterr().out
    assert read_published(publish_dir(scored)) == before
    assert scored.query("select count(*) from int_scores_published") == [(len(MARTS + OTHERS),)]


def test_a_folder_that_cannot_be_written_fails_the_run_and_says_what_to_do(scored):
    shutil.rmtree(publish_dir(scored))
    publish_dir(scored).write_text("a file")
    message = scored.build_fails(select=SCORING, args=NO_TESTS)
    assert "warehouse_published" in message
    assert "publish_dir: false" in message
    assert scored.query("select count(*) from churn_scores") == [(5,)]


def test_scores_are_judged_and_published_once_their_horizon_has_passed(scored):
    """Two models scored the same cutoff; a full refresh later forgets the scores."""
    promote_tiny(scored, seed=1)
    scored.build(select=SCORING, args=NO_TESTS)
    said = scored.query(f"select {SAID} from churn_scores order by all")
    back = [{**EVENTS[0], "event_ts": f"2024-03-{day} 10:00:00"} for day in ("05", "20")]
    scored.vars["churn__events_path"] = scored.events_parquet([*EVENTS, *back])
    scored.build(args=NO_TESTS)
    assert scored.query(f"select {SAID} from churn_score_outcomes order by all") == said
    assert scored.query(
        "select distinct user_id = 'u0', is_churned, cast(horizon_end_date as varchar) "
        "from churn_score_outcomes order by all"
    ) == [(False, True, "2024-03-08"), (True, False, "2024-03-08")]
    assert scored.query("select user_count, churned_count from churn_model_performance") == 2 * [
        (5, 4)
    ]
    for mart in OUTCOMES:
        assert published(scored, mart) == scored.query(f"from {mart} order by all")
    scored.test(select="assert_matured_scores_have_an_outcome assert_outcomes_agree_with_labels")
    scored.build(args=["--full-refresh", *NO_TESTS])
    assert scored.query("select distinct cast(cutoff_date as varchar) from churn_scores") == [
        ("2024-03-20",)
    ]
    assert scored.query(f"select {SAID} from churn_score_outcomes order by all") == said
