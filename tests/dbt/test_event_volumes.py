"""churn_event_volumes against numpy: what stops, doubles, rests or is rare; and a steady year."""

from __future__ import annotations

import datetime

import numpy as np
import pyarrow as pa
import pytest
from reference_volumes import NEEDED_DAYS, judge

END = datetime.date(2024, 7, 1)
"""The data end."""
NUM_DAYS = 91 + NEEDED_DAYS
NO_TESTS = ["--exclude-resource-type", "test", "unit_test"]
WEEKEND_OFF = np.tile([1, 1, 1, 1, 1, 0, 0], NUM_DAYS // 7 + 1)[:NUM_DAYS]


def clustered(generator, mean, size: int):
    """Counts of variance 6 times their mean, such as lines of baskets."""
    return generator.negative_binomial(mean / 5, 1 / 6, size)


def all_series() -> dict[str, np.ndarray]:
    """Type to (D,) counts of the days before the data end, D at most NUM_DAYS."""
    generator = np.random.default_rng(3)
    steady = {
        f"poisson {mean}": generator.poisson(mean, NUM_DAYS) for mean in (0.3, 1.9, 2.1, 5, 30, 900)
    }
    steady |= {f"clustered {mean}": clustered(generator, mean, NUM_DAYS) for mean in (3, 40)}
    steady["weekend off"] = generator.poisson(60, NUM_DAYS) * WEEKEND_OFF
    found = dict(steady)
    for days in (1, 3, 4, 7, 14, 40):
        found[f"stops {days}"] = generator.poisson(50, NUM_DAYS)
        found[f"stops {days}"][-days:] = 0
    found["stops where little came"] = generator.poisson(3, NUM_DAYS)
    found["stops where little came"][-7:] = 0
    found["a day is lost"] = generator.poisson(500, NUM_DAYS)
    found["a day is lost"][-3] = 0
    found["two days come twice"] = generator.poisson(500, NUM_DAYS)
    found["two days come twice"][-3:-1] *= 2
    found["comes four times"] = generator.poisson(500, NUM_DAYS)
    found["comes four times"][-7:] *= 4
    found["mails"] = np.where(np.arange(NUM_DAYS) % 17 == 5, 300, 0)
    found["grows"] = generator.poisson(np.geomspace(50, 400, NUM_DAYS))
    found["is new"] = generator.poisson(90, NEEDED_DAYS)
    found["is known just long enough"] = generator.poisson(90, NEEDED_DAYS + 1)
    for name in ("is new", "is known just long enough"):
        found[name][-1] = 0
    found["is a week old"] = np.full(7, 1_000)
    return found


@pytest.fixture(scope="module")
def series():
    return all_series()


@pytest.fixture(scope="module")
def rows(module_dbt_project, series):
    """(type, day from the end) to a row of the table, made from real events."""
    project = module_dbt_project
    types, dates = [], []
    for name, counts in series.items():
        days = [END - datetime.timedelta(days=len(counts) - day) for day in range(len(counts))]
        types += [name] * int(counts.sum())
        dates += list(np.repeat(np.array(days, "datetime64[us]"), counts))
    # An event is itself: each has a moment of its own.
    moments = np.array(dates) + np.arange(len(dates)).astype("timedelta64[ms]") % np.timedelta64(
        80_000_000, "ms"
    )
    newest = np.datetime64(END, "us") + np.timedelta64(9, "h")
    events = pa.table(
        {
            "user_id": pa.array(["u"] * (len(types) + 1)),
            "event_type": [*types, "poisson 30"],
            "event_ts": np.append(moments, newest),
        }
    )
    project.load("raw_events", events)
    project.vars = {
        "churn__events_relation": "raw_events",
        "churn__qualifying_event_types": ["poisson 30"],
    }
    project.build("+churn_event_volumes", args=NO_TESTS)
    table = project.table("select * from churn_event_volumes").to_pylist()
    return {(row["event_type"], (END - row["event_date"]).days): row for row in table}


def test_every_row_is_that_of_numpy(series, rows):
    expected = {
        (name, len(counts) - day): (counts, day)
        for name, counts in series.items()
        for day in range(np.flatnonzero(counts)[0], len(counts))
        if len(counts) - day <= 91
    }
    assert rows.keys() == expected.keys()
    for key, (counts, day) in expected.items():
        since_first = counts[np.flatnonzero(counts)[0] :]
        verdict = judge(since_first, day - (len(counts) - len(since_first)))
        row = rows[key]
        assert row["event_count"] == counts[day], key
        assert (row["severity"], row["reason"]) == (verdict.severity, verdict.reason), key
        assert (row["expected_low"], row["expected_high"]) == (verdict.expected or (None, None))
        assert (row["expected_week_low"], row["expected_week_high"]) == (
            verdict.expected_week or (None, None)
        )


@pytest.mark.parametrize(
    ("name", "severity", "reason"),
    [
        ("stops 1", "warn", "day_below"),
        ("stops 3", "warn", "day_below"),
        ("stops 4", "error", "week_far_below"),
        ("stops 7", "error", "week_far_below"),
        ("stops 14", "error", "silent"),
        ("stops 40", "ok", None),
        ("stops where little came", "error", "week_far_below"),
        ("comes four times", "error", "week_far_above"),
        ("is new", "ok", None),
        ("is known just long enough", "warn", "day_below"),
        ("is a week old", "ok", None),
        ("poisson 0.3", "ok", None),
        ("mails", "ok", None),
    ],
)
def test_the_newest_day_says(rows, name, severity, reason):
    assert (rows[name, 1]["severity"], rows[name, 1]["reason"]) == (severity, reason)


def test_a_lost_and_a_doubled_day_are_told_on_their_day(rows):
    assert rows["a day is lost", 3]["reason"] == "day_below"
    assert rows["a day is lost", 1]["severity"] == "ok"
    assert rows["two days come twice", 3]["reason"] == "day_above"
    assert rows["two days come twice", 2]["reason"] == "day_above"


def test_what_is_steady_rests_or_grows_is_ok(rows):
    calm = ("poisson", "clustered", "weekend off", "grows", "mails")
    unusual = {
        key: row["reason"]
        for key, row in rows.items()
        if key[0].startswith(calm) and row["severity"] != "ok"
    }
    assert not unusual


def test_messages_name_type_date_count_and_range(rows, module_dbt_project):
    del rows
    project = module_dbt_project
    project.test("assert_event_volumes_are_usual", vars={"churn__late_data_days": 0})
    assert any("assert_event_volumes_are_usual" in warning for warning in project.warnings)


def test_late_days_are_not_judged_and_a_second_build_changes_nothing(rows, module_dbt_project):
    del rows
    project = module_dbt_project
    before = project.query("select * from churn_event_volumes order by all")
    project.run("int_event_types_counted_to_days churn_event_volumes")
    assert project.query("select * from churn_event_volumes order by all") == before
    project.run(
        "int_event_types_counted_to_days churn_event_volumes", vars={"churn__late_data_days": 3}
    )
    newest = project.query("select max(event_date) from churn_event_volumes")
    assert newest == [(END - datetime.timedelta(days=4),)]


@pytest.mark.parametrize("mean", [2, 3, 10, 300])
@pytest.mark.parametrize("is_clustered", [False, True], ids=["poisson", "clustered"])
def test_a_steady_year_has_no_error(mean, is_clustered):
    generator = np.random.default_rng(11)
    size = 365 + NEEDED_DAYS
    counts = clustered(generator, mean, size) if is_clustered else generator.poisson(mean, size)
    errors = [day for day in range(size) if judge(counts, day).severity == "error"]
    assert not errors
