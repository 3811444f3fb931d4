"""Real dbt runs over features of which some cannot be scored: warn, fail, mend."""

from __future__ import annotations

import json
import shutil

import pytest
from factories import model_settings, tiny_bundle

from churn_udf.bundle_store import set_champion
from churn_udf.contracts.bundle import FeatureSpec
from churn_udf.warehouse.champion_scorers import forget_scorers

SCORING = "int_inputs_scored+"
NO_TESTS = ["--exclude-resource-type", "test", "unit_test"]
WITH_TESTS = ["--exclude-resource-type", "unit_test"]
USERS = [f"u{number}" for number in range(8)]
SETTINGS = {"observation_days": 60, "eligibility_days": 60, "horizon_days": 10}
CUTOFF = "2024-03-01"
FAIL = {"churn__unscorable_rows": "fail"}


@pytest.fixture(scope="module")
def features_project(module_dbt_project):
    """The package built up to churn_examples, with a champion that has not scored yet."""
    project = module_dbt_project
    project.vars = {f"churn__{name}": value for name, value in SETTINGS.items()}
    project.vars["churn__training_cutoffs"] = ["2024-02-15"]
    events = [
        {
            "user_id": user,
            "event_type": "purchase",
            "event_ts": f"2024-02-{day:02d} 10:00:00",
            "amount": 10.0 + number,
        }
        for number, user in enumerate(USERS)
        for day in range(1, 28, 2 + number)
    ]
    events.append({"user_id": "end", "event_type": "purchase", "event_ts": f"{CUTOFF} 09:00:00"})
    project.vars["churn__events_path"] = project.events_parquet(events)
    project.build(args=NO_TESTS)
    return project


@pytest.fixture
def project(dbt_project, features_project):
    """A copy of it."""
    forget_scorers()
    shutil.copy(features_project.database, dbt_project.database)
    dbt_project.vars = dict(features_project.vars)
    compiled = dbt_project.succeed(["compile", "--inline", "{{ churn_scoring.churn_context() }}"])
    features = json.loads(compiled.results[0].node.compiled_code)["features"]
    specs = [FeatureSpec(name=item["name"], group=item["group"]) for item in features]
    bundle = tiny_bundle(dbt_project.models_dir, specs, model_settings(**SETTINGS))
    set_champion(dbt_project.models_dir, bundle.bundle_id, reason="test")
    return dbt_project


def change(project, table: str, user: str, value: str) -> None:
    """Overwrite a value of a built table, and the hash with it, as a build would."""
    where = f"where user_id = '{user}' and cutoff_date = date '{CUTOFF}'"
    project.execute(
        f"update {table} set {value} {where}",
        f"update int_inputs_hashed set input_hash = md5(input_hash || $${value}$$) {where}",
    )


def spoil(project) -> None:
    """Three users that cannot be scored, each for a reason of its own."""
    change(project, "int_features_windowed_to_cutoffs", "u1", "amount_365d = 'inf'")
    change(project, "int_visits_serialized_to_text", "u2", "behavior_text = null")
    change(project, "int_inputs_hashed", "u3", "input_hash = null")


def users_of(project, table: str) -> list[str]:
    return [user for (user,) in project.query(f"select user_id from {table} order by 1")]


def test_warn_publishes_the_rest_and_lists_who_is_missing(project):
    spoil(project)
    project.build(select=SCORING, args=WITH_TESTS)
    (warning,) = [text for text in project.warnings if "could not be scored" in text]
    assert "3 of 8 rows could not be scored" in warning
    assert "1 infinite_feature, 1 null_input_hash, 1 null_text" in warning
    assert "see churn_unscorable" in warning
    assert project.query(
        "select user_id, reason, column_name, value, cast(cutoff_date as varchar) "
        "from churn_unscorable order by 1"
    ) == [
        ("u1", "infinite_feature", "amount_365d", "inf", CUTOFF),
        ("u2", "null_text", "behavior_text", None, CUTOFF),
        ("u3", "null_input_hash", "input_hash", None, CUTOFF),
    ]
    assert users_of(project, "churn_scores") == [u for u in USERS if u not in ("u1", "u2", "u3")]
    assert users_of(project, "churn_scores_current") == users_of(project, "churn_scores")
    listed = project.query("select * from churn_unscorable order by all")
    project.build(select=SCORING, args=NO_TESTS)
    assert project.query("select * from churn_unscorable order by all") == listed


def test_a_score_goes_when_its_input_breaks_and_comes_back_when_it_is_mended(project):
    project.build(select=SCORING, args=NO_TESTS)
    before = project.query("select user_id, churn_probability from churn_scores order by 1")
    assert [user for user, _ in before] == USERS
    assert project.query("select count(*) from churn_unscorable") == [(0,)]
    hashes = "create table hashes as select * from int_inputs_hashed"
    value = "select amount_365d from int_features_windowed_to_cutoffs where user_id = 'u1' "
    ((amount,),) = project.query(f"{value} and cutoff_date = date '{CUTOFF}'")
    project.execute(hashes)
    change(project, "int_features_windowed_to_cutoffs", "u1", "amount_365d = '-inf'")
    project.build(select=SCORING, args=WITH_TESTS)
    assert users_of(project, "churn_scores") == [user for user in USERS if user != "u1"]
    assert users_of(project, "churn_unscorable") == ["u1"]

    change(project, "int_features_windowed_to_cutoffs", "u1", f"amount_365d = {amount}")
    project.execute("delete from int_inputs_hashed", "insert into int_inputs_hashed from hashes")
    project.build(select=SCORING, args=WITH_TESTS)
    assert project.query("select user_id, churn_probability from churn_scores order by 1") == before
    assert users_of(project, "churn_unscorable") == []
    assert not [text for text in project.warnings if "could not be scored" in text]


def test_fail_stops_the_build_names_them_and_keeps_the_scores(project):
    spoil(project)
    message = project.build_fails(select=SCORING, vars=FAIL, args=NO_TESTS)
    assert "int_inputs_scored" in message
    assert "3 of 8 rows could not be scored" in message
    assert "user 'u1': infinite_feature, column 'amount_365d': got inf" in message
    assert "user 'u2': null_text" in message
    assert "churn__unscorable_rows: warn" in message
    assert project.query("select count(*) from churn_score_cache") == [(5,)]
    assert users_of(project, "churn_scores") == users_of(project, "churn_unscorable") == []
    asked = '{"error": ["AdapterEventWarning"]}'
    message = project.build_fails(select=SCORING, args=[*NO_TESTS, "--warn-error-options", asked])
    assert "3 of 8 rows could not be scored" in message
    project.build(select=SCORING, args=NO_TESTS)
    assert len(users_of(project, "churn_scores")) == 5


def test_a_model_that_can_score_nobody_publishes_nothing(project):
    project.execute("update int_features_windowed_to_cutoffs set amount_365d = 'inf'")
    project.build(select=SCORING, args=WITH_TESTS)
    assert users_of(project, "churn_scores") == []
    assert users_of(project, "churn_unscorable") == USERS
