"""Input mapping and cleaning: whatever the source looks like, one shape comes out."""

from __future__ import annotations

import datetime

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

STAGING = "event_type_roles base_churn__events base_churn__users path:models/staging"
NO_TESTS = ["--exclude-resource-type", "test", "unit_test"]

BASE = {"user_id": "u1", "event_type": "purchase", "event_ts": "2024-01-01 10:00:00"}


def _stage(project, rows=None, *, vars=None, **options):
    if rows is not None:
        project.vars = {"churn__events_path": project.events_parquet(rows, **options)}
    project.build(select=STAGING, vars=vars, args=NO_TESTS)


def _reasons(project):
    return dict(
        project.query(
            "select order_id, reject_reason from stg_churn__events_checked order by order_id"
        )
    )


def _reconciles(project, raw_count):
    accepted = project.query("select count(*) from stg_churn__events")[0][0]
    rejected = project.query("select count(*) from stg_churn__rejected_events")[0][0]
    assert accepted + rejected == raw_count
    project.test(select="assert_accepted_plus_rejected_equals_raw")


def test_each_value_rule_has_its_reason_at_and_beyond_its_bound(dbt_project):
    now = datetime.datetime.now(datetime.timezone.utc).replace(tzinfo=None)
    hour = datetime.timedelta(hours=1)
    cases = [
        ({"user_id": None}, "null_user_id"),
        ({"user_id": " \t "}, "null_user_id"),
        ({"event_type": None}, "null_event_type"),
        ({"event_type": ""}, "null_event_type"),
        ({"event_ts": None}, "null_event_ts"),
        ({"event_ts": now + hour}, "future_event_ts"),
        ({"event_ts": now - hour}, None),
        ({"event_ts": "1970-12-31 23:59:59.999999"}, "event_ts_too_old"),
        ({"event_ts": "1971-01-01 00:00:00"}, None),
        ({"amount": 1e6}, None),
        ({"amount": 1e6 + 0.01}, "absurd_amount"),
        ({"amount": -1e6 - 0.01}, "absurd_amount"),
        ({"amount": float("nan")}, "non_finite_amount"),
        ({"amount": float("-inf")}, "non_finite_amount"),
        ({"quantity": -1e6}, None),
        ({"quantity": 1e6 + 1}, "absurd_quantity"),
        ({"quantity": float("nan")}, "non_finite_quantity"),
        ({"rating": 1000.0}, None),
        ({"rating": 1000.1}, "absurd_rating"),
        ({"rating": float("inf")}, "non_finite_rating"),
        ({"discount_amount": 1e6}, None),
        ({"discount_amount": 1e7}, "absurd_discount_amount"),
        ({"discount_amount": float("nan")}, "non_finite_discount_amount"),
        ({"user_id": None, "amount": float("nan")}, "null_user_id"),
    ]
    rows = [{**BASE, "order_id": f"{n:03}", **case} for n, (case, _) in enumerate(cases)]
    _stage(dbt_project, rows)
    assert _reasons(dbt_project) == {f"{n:03}": reason for n, (_, reason) in enumerate(cases)}
    _reconciles(dbt_project, len(cases))


def test_text_that_does_not_parse_is_rejected_not_guessed(dbt_project):
    text = {name: pa.string() for name in ("event_ts", "amount", "quantity", "rating")}
    cases = [
        ({"amount": " 12.50 "}, None),
        ({"amount": ""}, None),
        ({"amount": "12,50"}, "unparseable_amount"),
        ({"amount": "NaN"}, "non_finite_amount"),
        ({"amount": "1e999"}, "non_finite_amount"),
        ({"quantity": "three"}, "unparseable_quantity"),
        ({"rating": "*****"}, "unparseable_rating"),
        ({"event_ts": "yesterday"}, "unparseable_event_ts"),
        ({"event_ts": "2024-02-30"}, "unparseable_event_ts"),
        ({"event_ts": "01/02/2024"}, "unparseable_event_ts"),
        ({"event_ts": "   "}, "null_event_ts"),
        ({"event_ts": "infinity"}, "non_finite_event_ts"),
    ]
    rows = [{**BASE, "order_id": f"{n:03}", **case} for n, (case, _) in enumerate(cases)]
    _stage(dbt_project, rows, types=text)
    assert _reasons(dbt_project) == {f"{n:03}": reason for n, (_, reason) in enumerate(cases)}
    rejected = dbt_project.query(
        "select amount from stg_churn__rejected_events where reject_reason = 'unparseable_amount'"
    )
    assert rejected == [("12,50",)]
    _reconciles(dbt_project, len(cases))


def test_exact_duplicates_are_accepted_once(dbt_project):
    rows = [
        {**BASE, "order_id": "o", "amount": 1.0},
        {**BASE, "order_id": "o", "amount": 1.0},
        {**BASE, "order_id": " o ", "event_type": "Purchase", "amount": 1.0},
        {**BASE, "order_id": "o", "amount": 1.5},
        {**BASE, "order_id": "o", "amount": None},
        {**BASE, "order_id": None, "item_id": "o", "amount": 1.0},
        {**BASE, "order_id": "o", "amount": 0.0},
        {**BASE, "order_id": "o", "amount": -0.0},
        {**BASE, "order_id": "o", "amount": 1.0, "event_ts": "2024-01-01 10:00:00.000001"},
    ]
    _stage(dbt_project, rows)
    assert dbt_project.query("select count(*) from stg_churn__events") == [(6,)]
    assert dbt_project.query(
        "select reject_reason, count(*) from stg_churn__rejected_events group by 1"
    ) == [("duplicate_event", 3)]
    _reconciles(dbt_project, len(rows))


def test_which_duplicate_stays_does_not_depend_on_the_row_order(dbt_project):
    rows = [{**BASE, "order_id": f" o{' ' * n}"} for n in range(20)]
    _stage(dbt_project, rows)
    query = "select order_id from stg_churn__rejected_events order by 1"
    first = dbt_project.query(query)
    assert len(first) == 19
    _stage(dbt_project, rows[::-1])
    assert dbt_project.query(query) == first


def test_other_teams_columns_are_mapped_and_extra_ones_ignored(dbt_project):
    table = pa.table(
        {
            "CustomerID": pa.array([17850, 17850, None], pa.int64()),
            "Kind of event": ["Order", "refund", "order"],
            "at": pa.array([datetime.date(2024, 1, 1)] * 3, pa.date32()),
            "Total": pa.array([5, 7, 9], pa.decimal128(9, 2)),
            "tags": pa.array([["a"], None, []], pa.list_(pa.string())),
        }
    )
    path = dbt_project.root / "events.parquet"
    pq.write_table(table, path)
    dbt_project.vars = {
        "churn__events_path": str(path),
        "churn__event_columns": {
            "user_id": "customerid",
            "event_type": "Kind of event",
            "event_ts": "at",
            "amount": "Total",
        },
    }
    _stage(dbt_project)
    assert dbt_project.query(
        "select user_id, event_type, event_role, event_ts, amount, quantity, order_id"
        " from stg_churn__events order by amount"
    ) == [
        ("17850", "order", "purchase", datetime.datetime(2024, 1, 1), 5.0, None, None),
        ("17850", "refund", "return", datetime.datetime(2024, 1, 1), 7.0, None, None),
    ]
    assert dbt_project.query(
        "select user_id, amount, event_ts from stg_churn__rejected_events"
    ) == [(None, "9.00", "2024-01-01")]
    _reconciles(dbt_project, 3)


@pytest.mark.parametrize(
    ("data_type", "value", "expected"),
    [
        (pa.timestamp("us"), datetime.datetime(2024, 1, 1, 23, 30), "2024-01-01 23:30:00"),
        (pa.timestamp("s"), datetime.datetime(2024, 1, 1, 23, 30), "2024-01-01 23:30:00"),
        (
            pa.timestamp("us", "America/New_York"),
            datetime.datetime(2024, 1, 2, 4, 30, tzinfo=datetime.timezone.utc),
            "2024-01-02 04:30:00",
        ),
        (pa.date32(), datetime.date(2024, 1, 1), "2024-01-01 00:00:00"),
        (pa.string(), "2024-01-01", "2024-01-01 00:00:00"),
        (pa.string(), "2024-01-01 23:30", "2024-01-01 23:30:00"),
        (pa.string(), "2024-01-01T23:30:00Z", "2024-01-01 23:30:00"),
        (pa.string(), "2024-01-01T23:30:00-05:00", "2024-01-02 04:30:00"),
        (pa.string(), "2024-01-01 23:30:00.25+02", "2024-01-01 21:30:00.25"),
    ],
    ids=str,
)
def test_times_of_any_type_become_utc(dbt_project, data_type, value, expected):
    _stage(dbt_project, [{**BASE, "event_ts": value}], types={"event_ts": data_type})
    assert dbt_project.query("select cast(event_ts as varchar) from stg_churn__events") == [
        (expected,)
    ]


def test_nanoseconds_before_midnight_stay_on_their_day(dbt_project):
    table = pa.table(
        {
            "user_id": ["u1"],
            "event_type": ["view"],
            "event_ts": pa.array([1704153599999999999], pa.timestamp("ns")),
        }
    )
    path = dbt_project.root / "events.parquet"
    pq.write_table(table, path, version="2.6")
    dbt_project.vars = {"churn__events_path": str(path)}
    _stage(dbt_project)
    assert dbt_project.query("select event_date from stg_churn__events") == [
        (datetime.date(2024, 1, 1),)
    ]


def test_identifiers_that_took_a_detour_through_floats_read_as_integers(dbt_project):
    rows = [{**BASE, "user_id": 17850.0}, {**BASE, "user_id": float("nan")}]
    _stage(dbt_project, rows, types={"user_id": pa.float64()})
    assert dbt_project.query("select user_id from stg_churn__events") == [("17850",)]
    assert dbt_project.query("select reject_reason from stg_churn__rejected_events") == [
        ("null_user_id",)
    ]


@pytest.mark.parametrize(
    "folder", ['it\'s, a "folder"', "{braces} (and) parentheses", "ünïcode 🛒"]
)
def test_awkward_paths_work(dbt_project, folder):
    (dbt_project.root / folder).mkdir()
    path = dbt_project.events_parquet([BASE], f"{folder}/events.parquet")
    dbt_project.vars = {"churn__events_path": path}
    _stage(dbt_project)
    assert dbt_project.query("select user_id from stg_churn__events") == [("u1",)]


def test_several_files_by_glob(dbt_project):
    dbt_project.events_parquet([BASE], "part-1.parquet")
    dbt_project.events_parquet([{**BASE, "user_id": "u2"}], "part-2.parquet")
    dbt_project.vars = {"churn__events_path": str(dbt_project.root / "part-*.parquet")}
    _stage(dbt_project)
    assert dbt_project.query("select count(*) from stg_churn__events") == [(2,)]


def test_csv_keeps_leading_zeros_and_rejects_bad_lines_one_by_one(dbt_project):
    path = dbt_project.root / "events.csv"
    path.write_text(
        "user_id,event_type,event_ts,amount,item_name\n"
        '007,purchase,2024-01-01 10:00:00,12.5,"Tea, ""green"""\n'
        "008,purchase,2024-01-01 10:00:00,twelve,\n",
        encoding="utf-8",
    )
    dbt_project.vars = {"churn__events_path": str(path)}
    _stage(dbt_project)
    assert dbt_project.query("select user_id, amount, item_name from stg_churn__events") == [
        ("007", 12.5, 'Tea, "green"')
    ]
    assert dbt_project.query("select user_id, reject_reason from stg_churn__rejected_events") == [
        ("008", "unparseable_amount")
    ]


@pytest.mark.parametrize(
    "relation", ["raw_events", "raw.events", 'warehouse.raw."my events"'], ids=str
)
def test_a_table_of_the_warehouse_is_read_as_a_source(dbt_project, relation):
    dbt_project.execute(
        "create schema raw",
        f"create table {relation} as select 'u1' as user_id, 'purchase' as event_type,"
        " current_timestamp as event_ts",
    )
    dbt_project.vars = {"churn__events_relation": relation}
    _stage(dbt_project)
    assert dbt_project.query("select user_id from stg_churn__events") == [("u1",)]
    results = dbt_project.succeed(["source", "freshness"]).results
    sources = [found for found in results if found.node.resource_type == "source"]
    assert [str(found.status) for found in sources] == ["pass"]


def test_users_become_words_json_and_a_count(dbt_project):
    users = pa.table(
        {
            "id": ["u1", " u2 ", "u3", None, "u1"],
            "Age_Band": ["45-54", None, 'say "hi"\\\n', "x", None],
            "income": pa.array([53123.55, 0.012345, -1999.0, 1.0, None]),
            "is_member": [True, False, None, True, None],
            "nested": pa.array([[1], [2], None, None, None], pa.list_(pa.int64())),
        }
    )
    pq.write_table(users, dbt_project.root / "users.parquet")
    vars = {
        "churn__users_path": str(dbt_project.root / "users.parquet"),
        "churn__user_columns": {"user_id": "ID"},
    }
    _stage(dbt_project, [BASE], vars=vars)
    assert dbt_project.query("select * from stg_churn__users order by 1") == [
        (
            "u1",
            "age band 45 54 income 53100 is member true",
            '{"Age_Band": "45-54", "income": "53100", "is_member": "true"}',
            3.0,
        ),
        (
            "u2",
            "income 0 0123 is member false",
            '{"Age_Band": null, "income": "0.0123", "is_member": "false"}',
            2.0,
        ),
        (
            "u3",
            "age band say hi income 2000",
            '{"Age_Band": "say \\"hi\\"\\\\", "income": "-2000", "is_member": null}',
            2.0,
        ),
    ]
    dbt_project.invoke("test", select="assert_users_are_unique_in_source", vars=vars)
    assert any("assert_users_are_unique_in_source" in warning for warning in dbt_project.warnings)


def test_profile_columns_can_be_chosen(dbt_project):
    dbt_project.load("users", pa.table({"user_id": ["u1"], "age": ["old"], "town": ["here"]}))
    vars = {"churn__users_relation": "users", "churn__profile_columns": ["Town"]}
    _stage(dbt_project, [BASE], vars=vars)
    assert dbt_project.query("select profile_text from stg_churn__users") == [("town here",)]


def test_dates_of_a_profile_are_left_out_unless_named(dbt_project):
    """What closed_at says today would tell a past cutoff its future."""
    closed = datetime.date(2024, 6, 1)
    users = pa.table({"user_id": ["u1"], "town": ["here"], "closed_at": [closed]})
    dbt_project.load("users", users)
    _stage(dbt_project, [BASE], vars={"churn__users_relation": "users"})
    query = "select profile_text, profile_field_count from stg_churn__users"
    assert dbt_project.query(query) == [("town here", 1.0)]
    named = {"churn__users_relation": "users", "churn__profile_columns": ["closed_at"]}
    _stage(dbt_project, [BASE], vars=named)
    assert dbt_project.query(query) == [("closed at 2024 06 01", 1.0)]


def test_without_users_the_users_table_is_empty_but_typed(dbt_project):
    _stage(dbt_project, [BASE])
    assert dbt_project.table("select * from stg_churn__users").schema == pa.schema(
        {
            "user_id": pa.string(),
            "profile_text": pa.string(),
            "profile_json": pa.string(),
            "profile_field_count": pa.float64(),
        }
    )


def test_empty_build_passes(dbt_project):
    dbt_project.vars = {"churn__events_path": dbt_project.events_parquet([BASE])}
    dbt_project.build(args=["--empty"])
    assert dbt_project.query("select count(*) from int_cutoffs_spined") == [(0,)]
