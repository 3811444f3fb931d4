"""churn_score_outcomes: a year of scores, recomputed from raw events build after build."""

from __future__ import annotations

import copy
import datetime
import random
import shutil

import numpy as np
import pytest
from outcome_shop import DATA_TESTS, EVERYTHING, NO_TESTS, OUTCOMES, Shop
from reference_outcomes import Score

from trainer.evaluate.metrics import classification_metrics

DAY = datetime.timedelta(days=1)
FIRST_DAY = datetime.date(2024, 1, 1)
FIRST_CUTOFF = datetime.date(2024, 2, 5)
CUTOFFS = [FIRST_CUTOFF + 7 * number * DAY for number in range(52)]
BUILD_EVERY_DAYS = 63
NUM_BUILDS = 7
NUM_USERS = 25
ERASED_IN = {"u03": 3, "u11": 5}
TRAINED_UNTIL = {
    "spring": datetime.date(2024, 2, 5),
    "summer": datetime.date(2024, 7, 1),
    "shadow": None,
}
"""The bundle `unknown` scores too, and no registry knows it."""
STAYS = "end"
"""A user who buys on the last day that a build sees, whichever it is."""


def make_history(generator):
    """Return {(user, day): builds that see the event}: some come late, some come and go."""
    seen = {}
    for number in range(NUM_USERS):
        rhythm = generator.choice([3, 8, 15, 30])
        day = FIRST_DAY + generator.randrange(rhythm) * DAY
        while day < FIRST_DAY + 470 * DAY:
            if generator.random() > 0.15:
                arrives = max(0, -(-(day - first_end()).days // BUILD_EVERY_DAYS))
                arrives += generator.choice([0] * 8 + [1, 2])
                builds = set(range(arrives, NUM_BUILDS))
                if generator.random() < 0.1:
                    builds -= {arrives + 1, generator.randrange(NUM_BUILDS)}
                seen[f"u{number:02d}", day] = builds
            day += generator.randint(1, 2 * rhythm) * DAY
    return seen


def first_end():
    """The last day that the first build sees."""
    return FIRST_CUTOFF + 10 * DAY


def known_in(history, build):
    """The events that a build sees; its last day always has one."""
    end = first_end() + build * BUILD_EVERY_DAYS * DAY
    known = [
        (user, day)
        for (user, day), builds in history.items()
        if build in builds and day <= end and build < ERASED_IN.get(user, NUM_BUILDS)
    ]
    return [*known, (STAYS, end)]


def give_scores(shop, purchases, generator, build):
    """Score what has a cutoff by now, once; the summer model also scores some cutoffs again."""
    days_of = {}
    for user, day in purchases:
        days_of.setdefault(user, set()).add(day)
    end = max(day for _, day in purchases)
    shop.scores = {
        key: score
        for key, score in shop.scores.items()
        if shop.ledger.is_eligible(days_of.get(key[0], ()), key[1])
    }
    for cutoff in CUTOFFS:
        if not end - BUILD_EVERY_DAYS * DAY < cutoff <= end:
            continue
        is_summer = cutoff >= datetime.date(2024, 7, 1)
        bundles = ["summer", "shadow"] if is_summer else ["spring", "unknown"]
        if cutoff.day <= 7:
            bundles.append("spring" if is_summer else "summer")
        for user in days_of:
            if shop.ledger.is_eligible(days_of[user], cutoff):
                shop.scores |= {
                    (user, cutoff, bundle): make_score(generator, build) for bundle in bundles
                }


def make_score(generator, build):
    probability = generator.choice([0.1, 0.25, generator.random(), generator.random()])
    return Score(
        probability=probability,
        risk_tier="high" if probability > 0.6 else "low",
        is_flagged=probability >= 0.5,
        scored_at=datetime.datetime(2026, 1, 1) + build * DAY,
    )


@pytest.fixture(scope="module")
def year(make_dbt_project):
    """The shop after a year of builds, each compared with the ledger."""
    shop = Shop(make_dbt_project())
    generator = random.Random(11)
    history = make_history(generator)
    shop.trained_until = dict(TRAINED_UNTIL)
    for build in range(NUM_BUILDS):
        purchases = known_in(history, build)
        give_scores(shop, purchases, generator, build)
        if build == NUM_BUILDS - 3:
            del shop.trained_until["spring"]  # the bundle was pruned
        shop.build(purchases)
        assert shop.outcomes() == shop.ledger.rows(), f"build {build}"
    return shop


def test_a_year_of_outcomes_is_what_the_raw_events_say(year):
    outcomes = list(year.ledger.outcomes.values())
    assert len({cutoff for _, cutoff, _ in year.ledger.outcomes}) == len(CUTOFFS)
    # the history has what the comparison is about
    assert {one.num_changes for one in outcomes} >= {0, 1, 2}
    assert {(one.first_is_churned, one.is_churned) for one in outcomes} == {
        *((True, True), (True, False), (False, True), (False, False))
    }
    assert {one.is_out_of_time for one in outcomes} == {True, False, None}
    assert not {user for user, _, _ in year.ledger.outcomes} & set(ERASED_IN)
    year.project.test(select=f"{OUTCOMES} {DATA_TESTS}")


def test_a_year_of_performance_is_what_the_raw_events_say(year):
    groups = {}
    for (_, cutoff, bundle), outcome in year.ledger.outcomes.items():
        groups.setdefault((bundle, cutoff), []).append(outcome)
    table = year.project.table("select * from churn_model_performance").to_pylist()
    found = {(row["bundle_id"], row["cutoff_date"]): row for row in table}
    assert found.keys() == groups.keys()
    for key, group in groups.items():
        row = found[key]
        labels = np.array([float(one.is_churned) for one in group])
        probabilities = np.array([one.score.probability for one in group])
        expected = classification_metrics(labels, probabilities, 0.5)
        for column, metric in {
            "base_rate": "base_rate",
            "auroc": "auroc",
            "average_precision": "average_precision",
            "brier_score": "brier_score",
            "log_loss": "log_loss",
            "calibration_error": "expected_calibration_error",
            "lift_top_decile": "lift_at_10pct",
        }.items():
            value = float("nan") if row[column] is None else row[column]
            assert value == pytest.approx(expected[metric], abs=1e-9, nan_ok=True), (key, column)
        assert row["changed_label_count"] == sum(one.num_changes > 0 for one in group)
        assert row["flagged_count"] == sum(one.score.is_flagged for one in group)
        assert row["is_out_of_time"] == group[0].is_out_of_time


@pytest.fixture
def shop(year, dbt_project):
    """A copy of the shop after the year."""
    shutil.copy(year.project.database, dbt_project.database)
    shop = copy.copy(year)
    shop.project = dbt_project
    shop.project.vars = dict(year.project.vars)
    shop.ledger = copy.deepcopy(year.ledger)
    shop.spans = list(year.spans)
    return shop


def a_matured(shop, *, is_churned):
    """Return user and cutoff of an outcome whose horizon's middle has no event to spare."""
    return next(
        (user, cutoff)
        for (user, cutoff, _), one in sorted(shop.ledger.outcomes.items())
        if one.is_churned == is_churned and one.num_changes == 0 and user != STAYS
    )


def outcome_of(shop, user, cutoff):
    """Return (is_churned, first_is_churned, label_change_count) of every bundle's outcome."""
    return set(
        shop.project.query(
            "select is_churned, first_is_churned, label_change_count from churn_score_outcomes "
            f"where user_id = '{user}' and cutoff_date = '{cutoff}'"
        )
    )


def test_a_second_build_changes_no_row_and_an_empty_one_no_outcome(shop):
    before = shop.stored_rows()
    shop.run()
    assert shop.stored_rows() == before
    shop.run(args=["--empty"])
    assert shop.stored_rows()["churn_score_outcomes"] == before["churn_score_outcomes"]


def test_a_label_that_goes_back_and_forth_is_counted_each_time(shop):
    user, cutoff = a_matured(shop, is_churned=True)
    purchases = shop.purchases
    first, end = cutoff + shop.ledger.windows.gap_days * DAY, shop.ledger.horizon_end(cutoff)
    beside = [*purchases, (user, first - DAY), (user, end)]
    for rows, expected in (([*beside, (user, end - DAY)], (False, 1)), (beside, (True, 2))):
        shop.build(rows)
        is_churned, count = expected
        assert outcome_of(shop, user, cutoff) == {(is_churned, True, count)}
        assert shop.outcomes() == shop.ledger.rows()
    shop.project.test(select=DATA_TESTS)


def test_a_full_refresh_keeps_outcomes_and_goes_on_with_their_labels(shop):
    before = {row[:3] for row in shop.outcomes()}
    user, cutoff = a_matured(shop, is_churned=False)
    first, end = cutoff + shop.ledger.windows.gap_days * DAY, shop.ledger.horizon_end(cutoff)
    shop.scores = {}  # as a full refresh leaves them
    shop.build(
        [row for row in shop.purchases if row[0] != user or not first <= row[1] < end],
        args=["--full-refresh"],
    )
    assert {row[:3] for row in shop.outcomes()} >= {row for row in before if row[0] != user}
    assert outcome_of(shop, user, cutoff) == {(True, False, 1)}
    assert shop.outcomes() == shop.ledger.rows()


def test_an_outcome_outlives_its_cutoff_but_not_its_user(shop):
    before = {row[:3] for row in shop.outcomes()}
    user, cutoff = a_matured(shop, is_churned=True)
    shop.scores = {}
    rows = [row for row in shop.purchases if row[0] != user]
    shop.project.vars["churn__training_cutoffs"] = [str(cutoff)]
    shop.load(rows)
    shop.project.build(select=EVERYTHING, args=["--full-refresh", *NO_TESTS])
    assert shop.project.query("select count(*) from int_cutoffs_spined") == [(2,)]
    assert {row[:3] for row in shop.outcomes()} == {row for row in before if row[0] != user}
    shop.project.test(select=DATA_TESTS)


def test_a_run_that_dies_between_the_marts_is_made_good_by_the_next(shop):
    user, cutoff = a_matured(shop, is_churned=True)
    shop.load([*shop.purchases, (user, cutoff + shop.ledger.windows.gap_days * DAY)])
    shop.run(select="+int_labels_matured")
    shop.run(select="churn_score_outcomes")
    # killed here: what was made of the outcomes is behind, and the data test says so
    failed = shop.project.invoke("test", select="assert_performance_adds_up_to_outcomes")
    assert not failed.success
    shop.run(select=OUTCOMES)
    assert outcome_of(shop, user, cutoff) == {(False, True, 1)}
    shop.project.test(select=DATA_TESTS)


def test_another_horizon_leaves_what_was_judged(shop):
    before = shop.stored_rows()["churn_score_outcomes"]
    shop.project.vars["churn__horizon_days"] += 21
    shop.run()
    assert shop.stored_rows()["churn_score_outcomes"] == before
    shop.project.test(select="assert_outcomes_agree_with_labels")


def test_outcomes_go_when_the_data_ends_before_their_horizon(shop):
    num_before = len(shop.outcomes())
    end = max(day for _, day in shop.purchases) - 70 * DAY
    rows = [row for row in shop.purchases if row[1] <= end]
    shop.scores = {key: score for key, score in shop.scores.items() if key[1] <= end}
    shop.build([*rows, (STAYS, end)])
    assert 0 < len(shop.outcomes()) < num_before
    assert shop.outcomes() == shop.ledger.rows()
    shop.project.test(select=DATA_TESTS)


def test_a_score_given_again_or_taken_back_takes_its_outcome_with_it(shop):
    again = next(key for key, one in shop.ledger.outcomes.items() if one.num_changes == 1)
    back = max(shop.ledger.outcomes)
    shop.scores = {**shop.scores, again: make_score(random.Random(5), 400)}
    del shop.scores[back]
    shop.unscorable = [back]
    shop.load(shop.purchases)
    shop.run(select=OUTCOMES)
    assert shop.outcomes() == [row for row in shop.ledger.rows() if row[:3] != back]
