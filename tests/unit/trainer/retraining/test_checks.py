"""Each check on plain facts: before, at and after its limit."""

from __future__ import annotations

import dataclasses
import datetime
import math

import pytest

from trainer.errors import ConfigError
from trainer.retraining.checks import (
    check_age,
    check_decay,
    check_drift,
    check_labels,
    labels_due_date,
)
from trainer.retraining.config import RetrainingConfig
from trainer.retraining.decay import critical_value, entropy
from trainer.retraining.inputs import (
    Bin,
    ChampionFacts,
    CutoffRows,
    DriftFacts,
    Estimate,
    OutcomeFacts,
    Promise,
    Unknown,
    WarehouseFacts,
)
from trainer.retraining.plan import RetrainingPlan, make_plan

TRAINED = datetime.date(2024, 6, 3)
DAY = datetime.timedelta(days=1)
DEFAULTS = RetrainingConfig()


@pytest.mark.parametrize(("days", "is_due"), [(59, False), (60, True), (61, True)])
def test_age_is_due_from_its_limit_on(days: int, is_due: bool) -> None:
    check = check_age(TRAINED, TRAINED + days * DAY, 60)
    assert check.is_due is is_due
    assert check.to_dict()["value"] == days
    assert ("due at 2024-08-02" in check.message) is not is_due


def test_age_that_is_off_or_unknown_is_never_due() -> None:
    assert not check_age(TRAINED, TRAINED + 9_999 * DAY, None).is_due
    unknown = check_age(None, TRAINED, 60)
    assert not unknown.is_due
    assert unknown.leading.value is None
    assert unknown.message.startswith("unknown: ")


def test_data_that_was_taken_back_makes_no_negative_age() -> None:
    assert check_age(TRAINED, TRAINED - DAY, 60).leading.value == 0


def weekly(num_rows: int, *, num_mature: int, count: int) -> list[CutoffRows]:
    return [
        CutoffRows(
            cutoff_date=TRAINED + (7 * week - 28) * DAY,
            matures_on=TRAINED + 7 * week * DAY,
            num_rows=num_rows,
            num_mature=num_rows if week <= num_mature else 0,
        )
        for week in range(1, count + 1)
    ]


@pytest.mark.parametrize(("least", "is_due"), [(299, True), (300, True), (301, False)])
def test_labels_are_due_from_their_count_on(least: int, is_due: bool) -> None:
    config = RetrainingConfig(min_new_labels=least, min_new_label_share=None)
    cutoffs = weekly(100, num_mature=3, count=6)
    check = check_labels(cutoffs, TRAINED + 21 * DAY, 1_000, config)
    assert check.is_due is is_due
    assert check.measures[0].value == 300


@pytest.mark.parametrize(("share", "is_due"), [(0.29, True), (0.3, True), (0.31, False)])
def test_labels_are_due_from_their_share_on(share: float, is_due: bool) -> None:
    config = RetrainingConfig(min_new_label_share=share)
    cutoffs = weekly(100, num_mature=3, count=6)
    assert check_labels(cutoffs, TRAINED + 21 * DAY, 1_000, config).is_due is is_due


def test_a_check_shows_the_measure_that_has_a_limit() -> None:
    cutoffs = weekly(100, num_mature=3, count=6)
    shown = check_labels(cutoffs, TRAINED + 21 * DAY, 1_000, DEFAULTS).to_dict()
    assert (shown["value"], shown["limit"]) == (0.3, 0.5)
    counted = RetrainingConfig(min_new_labels=900, min_new_label_share=None)
    shown = check_labels(cutoffs, TRAINED + 21 * DAY, 1_000, counted).to_dict()
    assert (shown["value"], shown["limit"]) == (300, 900)


def test_labels_known_after_the_score_cutoff_do_not_count() -> None:
    cutoffs = weekly(100, num_mature=3, count=6)
    for days, expected in ((20, 200), (21, 300), (22, 300)):
        check = check_labels(cutoffs, TRAINED + days * DAY, 1_000, DEFAULTS)
        assert check.measures[0].value == expected


def test_labels_tell_when_enough_will_have_matured() -> None:
    cutoffs = weekly(100, num_mature=3, count=6)
    today = TRAINED + 21 * DAY
    for least, expected in ((300, today), (301, TRAINED + 28 * DAY), (601, None)):
        config = RetrainingConfig(min_new_labels=least, min_new_label_share=None)
        assert labels_due_date(cutoffs, today, 1_000, config) == expected
    off = RetrainingConfig(min_new_label_share=None)
    assert labels_due_date(cutoffs, today, 1_000, off) is None


def drift_facts(**errors: tuple[str, ...]) -> DriftFacts:
    return DriftFacts(cutoff_date=TRAINED, errors=errors)


@pytest.mark.parametrize(("most", "is_due"), [(1, True), (2, False), (3, False), (None, False)])
def test_drift_is_due_above_its_limit(most: int | None, is_due: bool) -> None:
    config = RetrainingConfig(max_drifted_features=most)
    check = check_drift(drift_facts(feature=("amount_30d", "amount_365d")), config)
    assert check.is_due is is_due
    assert "2 features drifted (amount_30d, amount_365d) at cutoff 2024-06-03" in check.message


def test_drift_of_tokens_and_of_the_score_count_apart() -> None:
    found = drift_facts(token=("dairy",), score=("churn_probability",))
    due = {measure.name: measure.is_due for measure in check_drift(found, DEFAULTS).measures}
    assert due == {"drifted_features": False, "drifted_tokens": True, "drifted_scores": True}
    off = RetrainingConfig(max_drifted_tokens=None, max_drifted_scores=None)
    assert not check_drift(found, off).is_due


def test_what_is_unknown_is_never_due() -> None:
    unknown = Unknown(reason="table missing")
    for check in (check_drift(unknown, DEFAULTS), check_decay(unknown, CHAMPION, DEFAULTS)):
        assert not check.is_due
        assert check.message == "unknown: table missing"
        assert check.to_dict()["value"] is None


def outcome(**changes: object) -> OutcomeFacts:
    """An outcome exactly as promised by ``CHAMPION``."""
    bins = tuple(Bin(num_users=1_000, mean_probability=0.05 + 0.05 * i) for i in range(10))
    facts = OutcomeFacts(
        cutoff_date=TRAINED,
        num_users=10_000,
        num_churned=2_500,
        auroc=0.8,
        log_loss=entropy(0.25) - 0.1,
        log_loss_gain_error=0.003,
        calibration_error=0.02,
        bins=bins,
    )
    return dataclasses.replace(facts, **changes)  # type: ignore[arg-type]


CHAMPION = ChampionFacts(
    bundle_id="champion",
    trained_as_of=TRAINED,
    training_row_count=1_000,
    promise=Promise(
        auroc=Estimate(value=0.8, error=0.006),
        log_loss_gain=Estimate(value=0.1, error=0.003),
        calibration_error=Estimate(value=0.02, error=0.003),
    ),
)


def due_measures(item: OutcomeFacts, config: RetrainingConfig = DEFAULTS) -> set[str]:
    check = check_decay([item], CHAMPION, config)
    return {measure.name for measure in check.measures if measure.is_due}


def test_a_promise_that_is_kept_is_no_decay() -> None:
    assert due_measures(outcome()) == set()
    check = check_decay([outcome()], CHAMPION, DEFAULTS)
    assert [measure.value for measure in check.measures] == pytest.approx([0, 0, 0], abs=1e-12)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param({"auroc": 0.7701}, set(), id="auroc within its limit"),
        pytest.param({"auroc": 0.7699}, {"auroc_decay"}, id="auroc beyond"),
        pytest.param({"auroc": 0.9}, set(), id="auroc better"),
        pytest.param({"log_loss": entropy(0.25) - 0.0701}, set(), id="gain within"),
        pytest.param({"log_loss": entropy(0.25) - 0.0699}, {"log_loss_decay"}, id="gain beyond"),
        pytest.param({"calibration_error": 0.0699}, set(), id="calibration within"),
        pytest.param({"calibration_error": 0.0701}, {"calibration_decay"}, id="calibration beyond"),
    ],
)
def test_decay_is_due_beyond_its_limit(changes: dict[str, float], expected: set[str]) -> None:
    assert due_measures(outcome(**changes)) == expected


def test_a_fall_of_the_base_rate_alone_is_no_loss_of_gain() -> None:
    kept = outcome(num_churned=1_500, log_loss=entropy(0.15) - 0.1)
    assert due_measures(kept) == set()


def test_chance_does_not_trigger() -> None:
    few = outcome(num_users=200, num_churned=50, auroc=0.75, log_loss_gain_error=0.05)
    assert due_measures(few) == set()
    error = math.hypot(0.05, 0.003)
    for factor, expected in ((0.99, set()), (1.01, {"log_loss_decay"})):
        loss = factor * critical_value(0.99) * error
        item = outcome(log_loss=entropy(0.25) - 0.1 + loss, log_loss_gain_error=0.05)
        assert due_measures(item) == expected


def test_noise_of_small_bins_is_no_calibration_error() -> None:
    bins = tuple(Bin(num_users=20, mean_probability=0.3) for _ in range(10))
    noisy = outcome(num_users=200, num_churned=60, calibration_error=0.12, bins=bins, auroc=0.8)
    assert due_measures(noisy) == set()
    assert due_measures(dataclasses.replace(noisy, calibration_error=0.25)) == {"calibration_decay"}


def test_the_newest_cutoff_with_enough_users_is_looked_at() -> None:
    few = outcome(num_users=99, num_churned=40, auroc=0.5)
    one_sided = outcome(num_users=1_000, num_churned=19, auroc=0.5)
    bad = outcome(auroc=0.5, cutoff_date=TRAINED - 7 * DAY)
    check = check_decay([few, one_sided, bad, outcome()], CHAMPION, DEFAULTS)
    assert check.is_due
    assert "2024-05-27" in check.message
    assert not check_decay([few, one_sided], CHAMPION, DEFAULTS).is_due
    assert "no matured cutoff has 100 users" in check_decay([few], CHAMPION, DEFAULTS).message
    assert "has matured yet" in check_decay([], CHAMPION, DEFAULTS).message


def test_a_test_that_promises_nothing_decays_by_nothing() -> None:
    silent = dataclasses.replace(CHAMPION, promise=Promise())
    check = check_decay([outcome(auroc=0.5)], silent, DEFAULTS)
    assert not check.is_due
    assert "AUROC: its test does not say" in check.message


def planned(
    days: int, *, newest_days: int | None = None, config: RetrainingConfig = DEFAULTS
) -> RetrainingPlan:
    """The plan so many days after the champion, with drift, the newest training as given."""
    facts = WarehouseFacts(
        score_cutoff=TRAINED + days * DAY,
        cutoffs=weekly(100, num_mature=0, count=2),
        drift=drift_facts(feature=("amount",)),
        outcomes=(),
    )
    newest = None if newest_days is None else ("other", TRAINED + newest_days * DAY)
    return make_plan(CHAMPION, facts, newest, config)


@pytest.mark.parametrize(("days", "is_due"), [(16, False), (17, True), (18, True)])
def test_a_new_candidate_is_given_time(days: int, is_due: bool) -> None:
    plan = planned(days, newest_days=10)
    assert plan.reasons == ("drift",)
    assert plan.is_due is is_due
    document = plan.to_dict()
    assert document["waiting_until"] == (None if is_due else "2024-06-20")
    assert document["next_due_date"] == (str(TRAINED + days * DAY) if is_due else "2024-06-20")
    assert ("waiting until cutoff 2024-06-20" in plan.sentence) is not is_due


def test_the_plan_says_when_the_next_one_is_due() -> None:
    off = RetrainingConfig(max_drifted_features=None)
    plan = planned(1, newest_days=0, config=off)
    assert not plan.reasons
    assert plan.due_dates == {"age": TRAINED + 60 * DAY, "labels": None}
    assert plan.next_due_date == TRAINED + 60 * DAY
    assert "due at cutoff 2024-08-02" in plan.sentence
    few = dataclasses.replace(off, min_new_labels=101, max_age_days=None)
    assert planned(1, newest_days=0, config=few).next_due_date == TRAINED + 14 * DAY
    assert planned(1, newest_days=10, config=few).next_due_date == TRAINED + 17 * DAY


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_age_days", -1),
        ("min_new_labels", 0),
        ("min_new_label_share", 0.0),
        ("max_drifted_features", -1),
        ("max_auroc_decay", -0.1),
        ("max_calibration_decay", float("nan")),
        ("confidence", 1.0),
        ("min_days_between", -1),
        ("min_outcome_users", 0),
    ],
)
def test_a_limit_out_of_range_is_refused(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=rf"retraining\.{name} is .*; allowed: "):
        RetrainingConfig(**{name: value})  # type: ignore[arg-type]
