"""Stale data: scored with a warning, or refused before anybody is scored."""

from __future__ import annotations

import json

from factories import model_settings, tiny_bundle

from churn_udf.bundle_store import set_champion
from churn_udf.contracts.bundle import FeatureSpec

NO_TESTS = ["--exclude-resource-type", "test", "unit_test"]
WITH_TESTS = ["--exclude-resource-type", "unit_test"]
SETTINGS = {"observation_days": 60, "eligibility_days": 60, "horizon_days": 10}
USERS = [f"u{number}" for number in range(5)]
FRESH, STALE = "2024-03-07 03:30:00", "2024-03-08 03:30:00"
"""The data ends on 1 March, so the newest complete day is 29 February: 7 and 8 days before."""


def test_stale_data_is_refused_before_scoring_when_told_so_and_warned_of_else(dbt_project):
    project = dbt_project
    project.vars = {f"churn__{name}": value for name, value in SETTINGS.items()}
    project.vars |= {"churn__training_cutoffs": ["2024-02-15"], "churn__as_of": FRESH}
    events = [
        {"user_id": user, "event_type": "purchase", "event_ts": f"2024-02-{day:02d} 10:00:00"}
        for number, user in enumerate(USERS)
        for day in range(1, 28, 2 + number)
    ]
    events.append({"user_id": "end", "event_type": "purchase", "event_ts": "2024-03-01 09:00:00"})
    project.vars["churn__events_path"] = project.events_parquet(events)
    compiled = project.succeed(["compile", "--inline", "{{ churn_scoring.churn_context() }}"])
    features = json.loads(compiled.results[0].node.compiled_code)["features"]
    specs = [FeatureSpec(name=item["name"], group=item["group"]) for item in features]

    def promote(seed: int) -> str:
        bundle = tiny_bundle(project.models_dir, specs, model_settings(**SETTINGS), seed=seed)
        set_champion(project.models_dir, bundle.bundle_id, reason="test")
        return bundle.bundle_id

    first = promote(0)
    project.build(args=NO_TESTS, vars={"churn__stale_data": "fail"})
    scores = project.query("select * from churn_scores order by all")
    assert len(scores) == len(USERS)

    second = promote(1)
    stale = {"churn__as_of": STALE, "churn__stale_data": "fail"}
    build = project.invoke("build", select="int_data_freshness+", vars=stale, args=WITH_TESTS)
    statuses = {result.node.name: str(result.status) for result in build.result.results}
    assert statuses["assert_data_is_fresh"] == "error"
    assert statuses["int_inputs_scored"] == "skipped"
    assert statuses["churn_scores_current"] == "skipped"
    messages = [project.build_fails("assert_data_is_fresh", command="test", vars=stale)]
    messages.append(project.build_fails("int_inputs_scored", command="run", vars=stale))
    for message in messages:
        assert "the newest complete day of events is 2024-02-29, 8 days before" in message
        assert "churn__stale_data" in message
    assert project.query("select * from churn_scores order by all") == scores

    stale["churn__stale_data"] = "warn"
    project.build(select="int_data_freshness+", vars=stale, args=WITH_TESTS)
    assert any("assert_data_is_fresh" in warning for warning in project.warnings)
    scored = project.query("select bundle_id, count(*) from churn_scores group by 1 order by 1")
    assert scored == sorted([(first, len(USERS)), (second, len(USERS))])

    stale["churn__stale_data"] = "allow"
    project.test(select="assert_data_is_fresh", vars=stale)
    assert not [warning for warning in project.warnings if "assert_data_is_fresh" in warning]
