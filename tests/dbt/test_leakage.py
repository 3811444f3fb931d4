"""Nothing outside [cutoff - observation_days, cutoff) reaches a row, to the second."""

from __future__ import annotations

import datetime
import itertools

import pytest

EXAMPLES = "+churn_examples"
NO_TESTS = ["--exclude-resource-type", "test", "unit_test"]
CUTOFF = datetime.datetime(2024, 4, 1)
START = datetime.datetime(2024, 2, 1)
SECOND = datetime.timedelta(seconds=1)
OBSERVATION_DAYS = (CUTOFF - START).days
OUTCOMES = {"is_churned", "is_label_mature", "is_score_cutoff"}

ACTIONS = ["add", "change", "delete"]
BOUNDS = {"cutoff": CUTOFF, "start": START}
OFFSETS = [-1, 0, 1]
CASES = {
    f"{bound}{offset:+d}s-{action}": (bound, offset, action)
    for bound, offset, action in itertools.product(BOUNDS, OFFSETS, ACTIONS)
}
VISIBLE = {
    name for name, (bound, offset, _) in CASES.items() if (bound == "cutoff") == (offset < 0)
}


def _event(moment: datetime.datetime, **values: object) -> dict[str, object]:
    number = int((moment - START).total_seconds()) % 7
    return {
        "event_type": "purchase",
        "event_ts": moment,
        "order_id": f"o{moment:%Y%m%d}",
        "item_id": f"i{number}",
        "item_name": f"thing{number} blue",
        "category": f"shelf{number % 3}",
        "amount": 10.0 + number,
        "quantity": 1.0 + number,
        "rating": 4.0,
        "review_text": "good as always",
        "discount_amount": 1.0,
        **values,
    }


def _history() -> list[dict[str, object]]:
    """One user's events: regular ones inside, and one at each side of both bounds."""
    inside = [START + datetime.timedelta(days=days, hours=9) for days in (5, 12, 20, 33, 41, 55)]
    around = [bound + offset * SECOND for bound in BOUNDS.values() for offset in OFFSETS]
    far = [START - datetime.timedelta(days=40), CUTOFF + datetime.timedelta(days=3)]
    types = itertools.cycle(["purchase", "view", "review", "return", "cart"])
    extra = [
        _event(moment + datetime.timedelta(hours=2), event_type=next(types), order_id=None)
        for moment in inside
    ]
    return [_event(moment) for moment in [*inside, *around, *far]] + extra


def _mutated(case: str) -> list[dict[str, object]]:
    bound, offset, action = CASES[case]
    moment = BOUNDS[bound] + offset * SECOND
    rows = _history()
    if action == "add":
        return [
            *rows,
            _event(moment, item_id="new", item_name="zebra", category="zoo", amount=500.0),
        ]
    if action == "delete":
        return [row for row in rows if row["event_ts"] != moment]
    changed = {"amount": 777.0, "quantity": 9.0, "rating": 1.0, "category": "zoo"}
    changed |= {"item_id": "new", "item_name": "zebra", "review_text": "terrible"}
    return [{**row, **changed} if row["event_ts"] == moment else row for row in rows]


def _build(project, users: dict[str, list[dict[str, object]]]) -> dict[str, tuple[object, ...]]:
    rows = [{"user_id": user, **row} for user, found in users.items() for row in found]
    project.vars = {
        "churn__events_path": project.events_parquet(rows),
        "churn__observation_days": OBSERVATION_DAYS,
        "churn__eligibility_days": OBSERVATION_DAYS,
        "churn__horizon_days": 7,
        "churn__training_cutoffs": [f"{CUTOFF:%Y-%m-%d}"],
        "churn__data_end_date": "2024-05-01",
    }
    # A full refresh: what is not recomputed could not show a leak.
    project.build(select=EXAMPLES, args=[*NO_TESTS, "--full-refresh"])
    table = project.table(
        f"select * from churn_examples where cutoff_date = date '{CUTOFF:%Y-%m-%d}'"
    )
    names = [name for name in table.column_names if name not in OUTCOMES]
    return {
        row["user_id"]: tuple(row[name] for name in names if name != "user_id")
        for row in table.to_pylist()
    }


@pytest.fixture(scope="module")
def before_and_after(make_dbt_project):
    """Rows of the same users with the same history, and after one mutation each."""
    project = make_dbt_project()
    end = {"clock": [_event(datetime.datetime(2024, 5, 1))]}
    before = _build(project, {name: _history() for name in CASES} | end)
    after = _build(
        project,
        {name: _mutated(name) for name in CASES}
        | end
        | {"newcomer": [_event(CUTOFF), _event(CUTOFF + SECOND)]},
    )
    return before, after


def test_users_of_one_history_have_one_row(before_and_after):
    before, _ = before_and_after
    assert set(before) == set(CASES)
    assert len(set(before.values())) == 1


@pytest.mark.parametrize("case", sorted(set(CASES) - VISIBLE))
def test_events_outside_the_window_change_no_byte(before_and_after, case):
    before, after = before_and_after
    assert after[case] == before[case]


@pytest.mark.parametrize("case", sorted(VISIBLE))
def test_events_inside_the_window_are_seen(before_and_after, case):
    before, after = before_and_after
    assert after[case] != before[case]
    assert after[case][-1] != before[case][-1], "the input_hash stayed"


def test_users_first_seen_at_the_cutoff_are_no_part_of_it(before_and_after):
    _, after = before_and_after
    assert "newcomer" not in after


def test_rows_do_not_depend_on_the_rest_of_the_future(make_dbt_project, before_and_after):
    before, _ = before_and_after
    cut = [row for row in _history() if row["event_ts"] < CUTOFF]
    end = {"clock": [_event(datetime.datetime(2024, 5, 1))]}
    after = _build(make_dbt_project(), dict.fromkeys(CASES, cut) | end)
    assert after == before
