"""Shadows and movers in real builds: five cutoffs in the life of three models."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from champion import promote_tiny
from factories import tiny_bundle
from scipy import stats

from churn_udf.bundle_store import bundle_directory, open_bundle, set_champion, write_bundle
from churn_udf.calibration import Calibrator
from churn_udf.contracts.bundle import CALIBRATION_FILE, MANIFEST_FILE
from churn_udf.registry import move, read_registry
from churn_udf.scoring import Scorer

NO_TESTS = ["--exclude-resource-type", "test", "unit_test"]
TESTED = (
    "churn_champions int_shadows_noted int_scores_attributed int_inputs_scored_by_shadows "
    "churn_score_movers churn_shadow_comparisons churn_shadow_movers churn_scores_current "
    "assert_every_example_scored_once assert_scored_plus_unscorable_equals_users"
)
NO_UNIT_TESTS = ["--exclude-resource-type", "unit_test"]
SCORING = "int_inputs_scored+"
SETTINGS = {"observation_days": 60, "eligibility_days": 60, "horizon_days": 10}
CUTOFFS = ("2024-02-16", "2024-02-20", "2024-02-24", "2024-02-28", "2024-03-01")
TABLES = (
    *("churn_scores", "churn_scores_current", "churn_score_movers", "churn_shadow_comparisons"),
    *("churn_shadow_movers", "churn_champions", "int_shadows_noted", "churn_score_outcomes"),
)


def purchases():
    """Purchases of users with rhythms of their own; two are new in the end."""
    rows = [
        {
            "user_id": f"u{number:02d}",
            "event_type": "purchase",
            "event_ts": f"2024-02-{day:02d} 10:00:00",
            "amount": 10.0 + 3 * number,
            "item_id": f"i{day}",
            "category": ["dairy", "bakery", "fruit"][day % 3],
        }
        for number in range(20)
        for day in range(26 if number > 17 else 1, 29, 2 + number % 11)
    ]
    return [*rows, {**rows[0], "user_id": "end", "event_ts": "2024-03-01 09:00:00"}]


def recalibrated(models_dir: Path, bundle_id: str) -> str:
    """Package a copy of a bundle with another calibrator; return its id."""
    source = open_bundle(bundle_directory(models_dir, bundle_id))
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / "bundle"
        shutil.copytree(source.directory, copy)
        turned = Calibrator(kind="platt", params={"a": [-1.0], "b": [0.25]})
        (copy / CALIBRATION_FILE).write_text(turned.to_json(), encoding="utf-8")
        paths = [path for path in copy.rglob("*") if path.is_file() and path.name != MANIFEST_FILE]
        return write_bundle(
            models_dir,
            files={str(path.relative_to(copy)): path for path in paths},
            settings=source.manifest.settings,
            features=source.manifest.features,
            training=source.manifest.training,
            versions=source.manifest.versions,
        ).bundle_id


class Life:
    """Builds at one cutoff after another, and what the tables said after each."""

    def __init__(self, project) -> None:
        self.project = project
        self.seen = {}
        self.examples = {}
        project.vars = {f"churn__{name}": value for name, value in SETTINGS.items()}
        project.vars["churn__training_cutoffs"] = ["2024-02-15"]
        project.vars["churn__events_path"] = project.events_parquet(purchases())

    def build(self, name: str, cutoff: str, *, is_tested: bool = False, **options) -> None:
        self.project.vars["churn__score_cutoff_date"] = cutoff
        self.project.build(**{"args": NO_TESTS, **options})
        warnings = list(self.project.warnings)
        if is_tested:
            self.project.test(select=TESTED, args=NO_UNIT_TESTS)
        self.examples[cutoff] = self.project.table(
            f"select * from churn_examples where cutoff_date = '{cutoff}' order by user_id"
        )
        self.seen[name] = {
            table: self.project.table(f"select * from {table} order by all").to_pylist()
            for table in TABLES
        }
        self.seen[name]["warnings"] = warnings
        self.seen[name]["cache"] = dict(
            self.project.query("select bundle_id, count(*) from churn_score_cache group by 1")
        )

    def rows(self, name: str, table: str) -> list[dict]:
        return self.seen[name][table]

    def scores(self, name: str, cutoff: str, bundle_id: str) -> dict[str, float]:
        return {
            row["user_id"]: row["churn_probability"]
            for row in self.rows(name, "churn_scores")
            if str(row["cutoff_date"]) == cutoff and row["bundle_id"] == bundle_id
        }

    def scorer(self, bundle_id: str) -> Scorer:
        directory = bundle_directory(self.project.models_dir, bundle_id)
        return Scorer.load(open_bundle(directory), device="cpu")

    def offline(self, bundle_id: str, cutoff: str) -> tuple[dict[str, float], dict[str, float]]:
        """Return user to logit and to probability by a bundle, outside the warehouse."""
        examples = self.examples[cutoff]
        table = self.scorer(bundle_id).score_batch(examples.combine_chunks().to_batches()[0])
        users = examples["user_id"].to_pylist()
        names = ("churn_logit", "churn_probability")
        return tuple(
            dict(zip(users, table.column(name).to_pylist(), strict=True)) for name in names
        )


@pytest.fixture(scope="module")
def life(module_dbt_project):
    life = Life(module_dbt_project)
    project, models_dir = life.project, life.project.models_dir
    first = promote_tiny(project, seed=0)
    manifest = first.manifest
    second, damaged = (
        tiny_bundle(models_dir, manifest.features, manifest.settings, seed=seed).bundle_id
        for seed in (1, 2)
    )
    life.first, life.second, life.damaged = first.bundle_id, second, damaged
    life.build("first cutoff", CUTOFFS[0])
    for name in (second, damaged):
        move(models_dir, name, "shadow", reason="test")
    (models_dir / "bundles" / damaged / "metrics.json").write_text("{ }")
    life.build("with shadows", CUTOFFS[1])
    life.build("again", CUTOFFS[1], select=SCORING, is_tested=True)
    move(models_dir, damaged, "retired", reason="damaged")
    set_champion(models_dir, second, reason="better")
    life.build("promoted on the same day", CUTOFFS[1], select=SCORING)
    set_champion(models_dir, life.first, reason="rollback")
    life.build("rolled back", CUTOFFS[1], select=SCORING)
    set_champion(models_dir, second, reason="better after all")
    move(models_dir, life.first, "shadow", reason="to compare")
    life.build("another model", CUTOFFS[2], is_tested=True)
    life.third = recalibrated(models_dir, second)
    set_champion(models_dir, life.third, reason="calibrated anew")
    move(models_dir, life.first, "retired", reason="not needed")
    life.build("another calibrator", CUTOFFS[3])
    set_champion(models_dir, life.first, reason="as before")
    shutil.rmtree(models_dir / "bundles" / life.third)
    life.build("bundle before is gone", CUTOFFS[4], is_tested=True)
    life.build("full refresh", CUTOFFS[4], select=SCORING, args=[*NO_TESTS, "--full-refresh"])
    return life


def test_nothing_has_moved_at_the_first_cutoff(life):
    for table in ("churn_score_movers", "churn_shadow_comparisons", "churn_shadow_movers"):
        assert life.rows("first cutoff", table) == [], table
    champions = life.rows("first cutoff", "churn_champions")
    assert [(row["bundle_id"], str(row["cutoff_date"])) for row in champions] == [
        (life.first, CUTOFFS[0])
    ]


def test_a_shadow_scores_whom_the_champion_scores_and_stays_out_of_the_current_scores(life):
    champion = life.scores("with shadows", CUTOFFS[1], life.first)
    shadow = life.scores("with shadows", CUTOFFS[1], life.second)
    assert champion.keys() == shadow.keys()
    assert len(champion) == 18
    current = life.rows("with shadows", "churn_scores_current")
    assert {row["bundle_id"] for row in current} == {life.first}
    _, offline = life.offline(life.second, CUTOFFS[1])
    assert shadow == pytest.approx(offline, abs=1e-6)


def test_a_damaged_shadow_is_left_out_with_a_warning(life):
    (warning,) = [text for text in life.seen["with shadows"]["warnings"] if "shadow" in text]
    assert f"shadow {life.damaged} is left out of this build" in warning
    assert f"churn-train models retire {life.damaged}" in warning
    assert "metrics.json" in warning
    assert life.scores("with shadows", CUTOFFS[1], life.damaged) == {}


def test_a_second_build_changes_no_row(life):
    for table in TABLES:
        assert life.rows("again", table) == life.rows("with shadows", table), table
    assert life.seen["again"]["cache"] == life.seen["with shadows"]["cache"]


def test_comparison_says_what_scipy_and_numpy_say(life):
    (row,) = life.rows("with shadows", "churn_shadow_comparisons")
    champion = life.scores("with shadows", CUTOFFS[1], life.first)
    shadow = life.scores("with shadows", CUTOFFS[1], life.second)
    users = sorted(champion)
    ours, theirs = (np.array([side[user] for user in users]) for side in (shadow, champion))
    assert (row["bundle_id"], row["champion_bundle_id"]) == (life.second, life.first)
    assert row["user_count"] == len(users)
    assert row["rank_correlation"] == pytest.approx(stats.spearmanr(ours, theirs)[0], abs=1e-9)
    assert row["mean_probability"] == pytest.approx(ours.mean(), abs=1e-12)
    assert row["champion_mean_probability"] == pytest.approx(theirs.mean(), abs=1e-12)
    assert row["mean_absolute_change"] == pytest.approx(abs(ours - theirs).mean(), abs=1e-12)
    movers = life.rows("with shadows", "churn_shadow_movers")
    assert [
        mover["change_rank"] for mover in sorted(movers, key=lambda one: one["change_rank"])
    ] == list(range(1, len(users) + 1))
    assert {mover["user_id"]: mover["probability_change"] for mover in movers} == {
        user: shadow[user] - champion[user] for user in users
    }


def test_scores_of_shadows_are_judged_like_those_of_the_champion(life):
    outcomes = life.rows("bundle before is gone", "churn_score_outcomes")
    for bundle_id in (life.first, life.second):
        scores = life.scores("bundle before is gone", CUTOFFS[1], bundle_id)
        assert {
            row["user_id"]: row["churn_probability"]
            for row in outcomes
            if str(row["cutoff_date"]) == CUTOFFS[1] and row["bundle_id"] == bundle_id
        } == scores
        assert scores


def test_a_promoted_shadow_needs_no_scoring_and_its_comparison_stays(life):
    for name in ("promoted on the same day", "rolled back"):
        assert life.seen[name]["cache"] == life.seen["with shadows"]["cache"]
        assert life.rows(name, "churn_scores") == life.rows("with shadows", "churn_scores")
        assert life.rows(name, "churn_shadow_comparisons") == life.rows(
            "with shadows", "churn_shadow_comparisons"
        )
    current = life.rows("promoted on the same day", "churn_scores_current")
    assert {row["bundle_id"] for row in current} == {life.second}


def test_the_last_champion_of_a_day_is_the_one_of_its_cutoff(life):
    def champions(name):
        rows = life.rows(name, "churn_champions")
        return {str(row["cutoff_date"]): row["bundle_id"] for row in rows}

    assert champions("promoted on the same day")[CUTOFFS[1]] == life.second
    assert champions("rolled back")[CUTOFFS[1]] == life.first
    movers = life.rows("another model", "churn_score_movers")
    assert {row["previous_bundle_id"] for row in movers} == {life.first}
    assert life.rows("rolled back", "churn_score_movers") == life.rows(
        "with shadows", "churn_score_movers"
    )


def movers_of(life, name):
    movers = life.rows(name, "churn_score_movers")
    assert [
        row["change_rank"] for row in sorted(movers, key=lambda one: one["change_rank"])
    ] == list(range(1, len(movers) + 1))
    ranked = sorted(movers, key=lambda one: one["change_rank"])
    changes = [abs(row["probability_change"]) for row in ranked]
    assert changes == sorted(changes, reverse=True)
    return {row["user_id"]: row for row in movers}


def test_all_change_is_behaviour_while_the_model_is_the_same(life):
    movers = movers_of(life, "with shadows")
    before = life.scores("with shadows", CUTOFFS[0], life.first)
    now = life.scores("with shadows", CUTOFFS[1], life.first)
    assert movers.keys() == before.keys() & now.keys()
    assert any(row["probability_change"] for row in movers.values())
    for user, row in movers.items():
        assert row["probability_change"] == now[user] - before[user]
        assert row["behaviour_effect"] == row["probability_change"]
        assert (row["model_effect"], row["calibration_effect"]) == (0.0, 0.0)
        assert row["main_cause"] == "behaviour"


def test_another_model_is_told_apart_from_other_behaviour(life):
    movers = movers_of(life, "another model")
    before = life.scores("another model", CUTOFFS[1], life.first)
    now = life.scores("another model", CUTOFFS[2], life.second)
    _, old = life.offline(life.first, CUTOFFS[2])
    assert len(movers) == len(before) == 18
    for user, row in movers.items():
        assert row["probability_change"] == now[user] - before[user]
        assert row["behaviour_effect"] == pytest.approx(old[user] - before[user], abs=1e-6)
        assert row["model_effect"] == pytest.approx(now[user] - old[user], abs=1e-6)
        assert row["calibration_effect"] == 0.0
    assert "model" in {row["main_cause"] for row in movers.values()}


def test_another_calibrator_alone_leaves_the_model_no_effect_and_scores_nothing(life):
    movers = movers_of(life, "another calibrator")
    before = life.scores("another calibrator", CUTOFFS[2], life.second)
    now = life.scores("another calibrator", CUTOFFS[3], life.third)
    logits, _ = life.offline(life.second, CUTOFFS[3])
    calibrator = life.scorer(life.second).bundle.calibrator
    for user, row in movers.items():
        old = calibrator.apply(np.array([logits[user]]))[0]
        assert row["behaviour_effect"] == pytest.approx(old - before[user], abs=1e-6)
        assert row["model_effect"] == 0.0
        assert row["calibration_effect"] == pytest.approx(now[user] - old, abs=1e-6)
        assert row["unsplit_reason"] is None
    cached = life.seen["another calibrator"]["cache"][life.second]
    assert cached == life.seen["another model"]["cache"][life.second]


def test_a_bundle_that_is_gone_leaves_the_change_and_a_reason(life):
    movers = movers_of(life, "bundle before is gone")
    before = life.scores("bundle before is gone", CUTOFFS[3], life.third)
    now = life.scores("bundle before is gone", CUTOFFS[4], life.first)
    assert movers.keys() == before.keys() & now.keys()
    for user, row in movers.items():
        assert row["probability_change"] == now[user] - before[user]
        assert row["unsplit_reason"] == "bundle_missing"
        effects = ("behaviour_effect", "model_effect", "calibration_effect", "main_cause")
        assert [row[name] for name in effects] == [None] * 4


def test_comparisons_keep_the_champion_of_their_time(life):
    rows = life.rows("bundle before is gone", "churn_shadow_comparisons")
    assert {
        (str(row["cutoff_date"]), row["bundle_id"], row["champion_bundle_id"]) for row in rows
    } == {(CUTOFFS[1], life.second, life.first), (CUTOFFS[2], life.first, life.second)}
    assert life.rows("bundle before is gone", "churn_shadow_movers") == []


def test_a_full_refresh_starts_over_but_knows_its_champions(life):
    assert life.rows("full refresh", "churn_score_movers") == []
    assert life.rows("full refresh", "churn_shadow_comparisons") == []
    champions = life.rows("full refresh", "churn_champions")
    assert {str(row["cutoff_date"]): row["bundle_id"] for row in champions} == dict(
        zip(CUTOFFS, (life.first, life.first, life.second, life.third, life.first), strict=True)
    )
    assert read_registry(life.project.models_dir).shadow_ids == ()
