"""Which cutoffs are built, and when a cutoff counts as changed."""

from __future__ import annotations

import datetime
import itertools

import pyarrow as pa
import pytest

NO_TESTS = ["--exclude-resource-type", "test", "unit_test"]
FIRST = datetime.datetime(2024, 1, 1, 10)
DAYS = 200
END = datetime.date(2024, 7, 18)


def _event(day, user="u1", **values):
    at = FIRST + datetime.timedelta(days=day)
    return {"user_id": user, "event_type": "purchase", "event_ts": at, "amount": 5.0, **values}


HISTORY = [_event(day) for day in range(DAYS)]


def _spine(project, rows=HISTORY, users=None, args=(), **vars):
    """Build the spine and return {cutoff_date: fingerprint}."""
    project.load("raw_users", users or pa.table({"user_id": ["u1"], "age": ["old"]}))
    project.vars = {
        "churn__events_path": project.events_parquet(rows),
        "churn__users_relation": "raw_users",
        **{f"churn__{name}": value for name, value in vars.items()},
    }
    project.build(select="+int_cutoffs_spined", args=[*NO_TESTS, *args])
    return dict(
        project.query("select cutoff_date, input_fingerprint from int_cutoffs_spined order by 1")
    )


def _dates(project, condition):
    query = f"select cutoff_date from int_cutoffs_spined where {condition} order by 1"
    return [row[0] for row in project.query(query)]


def _day(text):
    return datetime.date.fromisoformat(text)


def test_score_cutoff_latest_is_the_newest_event_date(dbt_project):
    _spine(dbt_project, training_cutoffs=["2024-05-01"])
    assert _dates(dbt_project, "is_score_cutoff") == [END]
    assert _dates(dbt_project, "is_training_cutoff") == [_day("2024-05-01")]
    assert dbt_project.query("select first_event_date, data_end_date from int_data_bounds") == [
        (FIRST.date(), END)
    ]


def test_a_cutoff_can_be_for_training_and_for_scoring(dbt_project):
    cutoffs = _spine(dbt_project, training_cutoffs=["2024-05-01"], score_cutoff_date="2024-05-01")
    assert list(cutoffs) == [_day("2024-05-01")]
    assert dbt_project.query(
        "select is_training_cutoff, is_score_cutoff, was_scored from int_cutoffs_spined"
    ) == [(True, True, True)]


def test_automatic_cutoffs_are_the_mondays_up_to_the_newest_mature_one(dbt_project):
    _spine(dbt_project, horizon_days=30, training_cutoffs={"every_days": 7})
    dates = _dates(dbt_project, "is_training_cutoff")
    newest = END - datetime.timedelta(days=30)
    assert {date.weekday() for date in dates} == {0}
    assert newest - datetime.timedelta(days=7) < dates[-1] <= newest


def test_first_alone_starts_the_steps(dbt_project):
    _spine(dbt_project, training_cutoffs={"first": "2024-04-04", "every_days": 14})
    dates = _dates(dbt_project, "is_training_cutoff")
    assert dates[:2] == [_day("2024-04-04"), _day("2024-04-18")]
    assert dates[-1] + datetime.timedelta(days=30) <= END


def test_automatic_cutoffs_reach_from_the_first_full_window_to_the_newest_mature_one(dbt_project):
    _spine(
        dbt_project,
        eligibility_days=60,
        gap_days=3,
        horizon_days=30,
        training_cutoffs={"every_days": 10},
    )
    dates = _dates(dbt_project, "is_training_cutoff")
    newest = END - datetime.timedelta(days=33)
    oldest = FIRST.date() + datetime.timedelta(days=60)
    assert newest - datetime.timedelta(days=10) < dates[-1] <= newest
    assert {later - earlier for earlier, later in itertools.pairwise(dates)} == {
        datetime.timedelta(days=10)
    }
    assert oldest <= dates[0] < oldest + datetime.timedelta(days=10)


def test_automatic_cutoffs_keep_the_newest_when_there_are_too_many(dbt_project):
    _spine(dbt_project, training_cutoffs={"every_days": 1}, max_training_cutoffs=3)
    newest = END - datetime.timedelta(days=30)
    assert _dates(dbt_project, "is_training_cutoff") == [
        newest - datetime.timedelta(days=step) for step in (2, 1, 0)
    ]


def test_first_and_last_bound_the_cutoffs(dbt_project):
    _spine(
        dbt_project,
        training_cutoffs={"first": "2024-04-03", "last": "2024-05-01", "every_days": 14},
    )
    assert _dates(dbt_project, "is_training_cutoff") == [
        _day("2024-04-03"),
        _day("2024-04-17"),
        _day("2024-05-01"),
    ]
    _spine(
        dbt_project,
        training_cutoffs={"first": "2024-04-04", "last": "2024-05-01", "every_days": 14},
    )
    assert _dates(dbt_project, "is_training_cutoff") == [_day("2024-04-17"), _day("2024-05-01")]


def test_a_load_that_is_complete_through_midnight_can_say_so(dbt_project):
    _spine(dbt_project, data_end_date="2024-07-19", training_cutoffs={"every_days": 7})
    assert _dates(dbt_project, "is_score_cutoff") == [_day("2024-07-19")]
    assert _dates(dbt_project, "is_training_cutoff")[-1] == _day("2024-06-17")


@pytest.mark.parametrize(
    ("vars", "var_name"),
    [
        ({"score_cutoff_date": "2024-01-01"}, "churn__score_cutoff_date"),
        ({"score_cutoff_date": "2024-07-19"}, "churn__score_cutoff_date"),
        ({"training_cutoffs": ["2024-01-01", "2024-05-01"]}, "churn__training_cutoffs"),
        ({"training_cutoffs": ["2024-05-01", "2024-07-19"]}, "churn__training_cutoffs"),
        ({"training_cutoffs": {"last": "2025-01-01"}}, "churn__training_cutoffs"),
        ({"training_cutoffs": {"first": "2023-01-01"}}, "churn__training_cutoffs"),
        ({"data_end_date": "2024-07-20"}, "churn__data_end_date"),
        ({"data_end_date": "2024-01-01"}, "churn__data_end_date"),
    ],
    ids=str,
)
def test_a_date_outside_the_data_is_refused(dbt_project, vars, var_name):
    path = dbt_project.events_parquet(HISTORY)
    dbt_project.vars = {
        "churn__events_path": path,
        **{f"churn__{name}": value for name, value in vars.items()},
    }
    message = dbt_project.build_fails(select="+int_cutoffs_spined", args=NO_TESTS)
    assert f"{var_name}: got 20" in message
    assert "allowed: " in message


@pytest.mark.parametrize("date", ["2024-01-02", "2024-07-18"])
def test_the_first_and_last_possible_score_cutoff_are_accepted(dbt_project, date):
    _spine(dbt_project, score_cutoff_date=date, training_cutoffs=[date])
    assert _dates(dbt_project, "is_score_cutoff") == [_day(date)]


OLD, NEW = _day("2024-03-01"), _day("2024-06-01")
PLAN = {"training_cutoffs": [str(OLD), str(NEW)], "observation_days": 60, "eligibility_days": 30}


@pytest.fixture(scope="module")
def before(module_dbt_project):
    """The fingerprints of HISTORY under PLAN."""
    return _spine(module_dbt_project, **PLAN)


def _changed(project, before, **options):
    after = _spine(project, **{**PLAN, **options})
    return {date for date in before if after[date] != before[date]}


def test_fingerprints_stay_when_nothing_that_matters_changes(module_dbt_project, before):
    assert len(set(before.values())) == 3
    assert _changed(module_dbt_project, before) == set()
    noise = [*HISTORY[::-1], HISTORY[20], _event(20, user=None)]
    assert _changed(module_dbt_project, before, rows=noise, max_training_cutoffs=9) == set()


@pytest.mark.parametrize(
    ("day", "expected"),
    [
        # OLD is day 60 after the first and sees days 0 to 59.
        (59, {OLD}),
        (60, set()),
        # NEW is day 152 and sees days 92 to 151; END is day 199 and sees days 139 to 198.
        (91, set()),
        (92, {NEW}),
        (138, {NEW}),
        (139, {NEW, END}),
        (151, {NEW, END}),
        (152, {END}),
        (199, set()),
    ],
)
def test_a_late_event_changes_the_cutoffs_that_see_its_day(
    module_dbt_project, before, day, expected
):
    days = [(date - FIRST.date()).days for date in (OLD, NEW, END)]
    assert days == [60, 152, 199]
    late = [*HISTORY, _event(day, user="u2")]
    assert _changed(module_dbt_project, before, rows=late) == expected


def test_a_change_of_any_column_changes_the_fingerprint(dbt_project):
    changes = [
        {"user_id": "u2"},
        {"event_type": "view"},
        {"event_ts": "one second later"},
        {"order_id": "o"},
        {"item_id": "i"},
        {"item_name": "tea"},
        {"category": "food"},
        {"amount": 5.000001},
        {"amount": None},
        {"quantity": 1.0},
        {"rating": 1.0},
        {"review_text": "good"},
        {"discount_amount": 0.5},
    ]
    # Cutoff n sees days 5 * n to 5 * n + 4 only, and change n is on day 5 * n + 2.
    cutoffs = [
        FIRST.date() + datetime.timedelta(days=5 * (number + 1)) for number in range(len(changes))
    ]
    untouched = FIRST.date() + datetime.timedelta(days=5 * (len(changes) + 1))
    plan = {
        "training_cutoffs": [str(date) for date in [*cutoffs, untouched]],
        "observation_days": 5,
        "eligibility_days": 5,
    }
    first = _spine(dbt_project, **plan)
    rows = [dict(row) for row in HISTORY]
    for number, change in enumerate(changes):
        row = rows[5 * number + 2]
        later = row["event_ts"] + datetime.timedelta(seconds=1)
        row.update({"event_ts": later} if "event_ts" in change else change)
    second = _spine(dbt_project, rows=rows, **plan)
    unseen = [
        change for date, change in zip(cutoffs, changes, strict=True) if first[date] == second[date]
    ]
    assert unseen == []
    assert first[untouched] == second[untouched]


def test_deleted_events_change_the_fingerprint(module_dbt_project, before):
    assert _changed(module_dbt_project, before, rows=[*HISTORY[:20], *HISTORY[21:]]) == {OLD}


def test_a_swap_of_values_between_events_changes_the_fingerprint(dbt_project):
    rows = [{**row, "amount": float(number)} for number, row in enumerate(HISTORY)]
    before = _spine(dbt_project, rows, **PLAN)
    swapped = [dict(row) for row in rows]
    swapped[20]["amount"], swapped[21]["amount"] = rows[21]["amount"], rows[20]["amount"]
    assert _changed(dbt_project, before, rows=swapped) == {OLD}


def test_a_changed_profile_or_setting_changes_every_fingerprint(module_dbt_project, before):
    everything = set(before)
    for users in (
        pa.table({"user_id": ["u1"], "age": ["young"]}),
        pa.table({"user_id": ["u2"], "age": ["old"]}),
        pa.table({"user_id": ["u1", "u2"], "age": ["old", "old"]}),
        pa.table({"user_id": ["u1"], "years": ["old"]}),
    ):
        assert _changed(module_dbt_project, before, users=users) == everything
    for vars in (
        {"observation_days": 61},
        {"eligibility_days": 31},
        {"qualifying_event_types": ["purchase", "view"]},
        {"max_visits": 3},
        {"max_review_chars": 10},
        {"event_type_roles": {"purchase": "view"}},
    ):
        assert _changed(module_dbt_project, before, **vars) == everything, vars
    assert _changed(module_dbt_project, before) == set()


def test_earlier_score_cutoffs_stay_until_they_leave_the_data(dbt_project):
    plan = {"training_cutoffs": ["2024-03-01"]}
    _spine(dbt_project, score_cutoff_date="2024-05-01", **plan)
    _spine(dbt_project, score_cutoff_date="2024-06-01", **plan)
    _spine(dbt_project, score_cutoff_date="2024-06-01", **plan)
    _spine(dbt_project, score_cutoff_date="latest", **plan)
    assert _dates(dbt_project, "was_scored") == [_day("2024-05-01"), _day("2024-06-01"), END]
    assert _dates(dbt_project, "is_score_cutoff") == [END]
    assert _dates(dbt_project, "not was_scored") == [_day("2024-03-01")]

    # A training cutoff that was only for training goes away; one that was scored stays.
    _spine(dbt_project, training_cutoffs=["2024-05-01"])
    assert _dates(dbt_project, "true") == [_day("2024-05-01"), _day("2024-06-01"), END]
    assert _dates(dbt_project, "is_training_cutoff and was_scored") == [_day("2024-05-01")]

    # A data set of another time has none of these cutoffs.
    shorter = HISTORY[:140]
    _spine(dbt_project, rows=shorter, **plan)
    assert _dates(dbt_project, "was_scored") == [_day("2024-05-01"), _day("2024-05-19")]

    _spine(dbt_project, rows=shorter, args=["--full-refresh"], **plan)
    assert _dates(dbt_project, "was_scored") == [_day("2024-05-19")]
