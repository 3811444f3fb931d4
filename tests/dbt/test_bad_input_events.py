"""Bad input ends in a clear error or in a rejected row, never in a wrong number."""

from __future__ import annotations

import datetime
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

NO_TESTS = ["--exclude-resource-type", "test", "unit_test"]
SPINE = "+int_cutoffs_spined stg_churn__rejected_events"

ROWS = [
    {"user_id": "u1", "event_type": "purchase", "event_ts": "2024-01-01 10:00:00"},
    {"user_id": "u1", "event_type": "view", "event_ts": "2024-03-01 10:00:00"},
]


def _fails(project, rows, vars=None, **options):
    project.vars = {"churn__events_path": project.events_parquet(rows, **options)}
    return project.build_fails(select=SPINE, vars=vars, args=NO_TESTS)


def _builds(project, rows, vars=None, **options):
    project.vars = {"churn__events_path": project.events_parquet(rows, **options)}
    project.build(select=SPINE, vars=vars, args=NO_TESTS)


def test_no_events_at_all(dbt_project):
    message = _fails(dbt_project, [])
    assert "no event was accepted" in message
    assert "churn__events_relation / churn__events_path" in message


def test_only_rejected_events(dbt_project):
    message = _fails(dbt_project, [{**ROWS[0], "user_id": None}])
    assert "no event was accepted" in message
    assert "stg_churn__rejected_events" in message
    assert dbt_project.query("select reject_reason from stg_churn__rejected_events") == [
        ("null_user_id",)
    ]


def test_no_event_of_a_qualifying_type_lists_the_types_seen(dbt_project):
    message = _fails(dbt_project, ROWS, vars={"churn__qualifying_event_types": ["it's a sale"]})
    assert "churn__qualifying_event_types: got it's a sale" in message
    assert "event types seen: purchase, view" in message


def test_only_one_day_of_events(dbt_project):
    message = _fails(dbt_project, ROWS[:1])
    assert "less than two days of events" in message


def test_one_user_with_two_events_builds(dbt_project):
    _builds(dbt_project, ROWS)
    assert dbt_project.query("select count(*) from int_cutoffs_spined where is_score_cutoff") == [
        (1,)
    ]


def test_a_horizon_that_no_label_matures_for_leaves_no_training_cutoff_and_warns(dbt_project):
    vars = {"churn__horizon_days": 60}
    _builds(dbt_project, ROWS, vars=vars)
    assert dbt_project.query(
        "select count(*) from int_cutoffs_spined where is_training_cutoff"
    ) == [(0,)]
    dbt_project.test(select="assert_training_cutoffs_exist", vars=vars)
    assert any("assert_training_cutoffs_exist" in warning for warning in dbt_project.warnings)


def test_a_straggler_that_moves_the_end_of_the_data_warns(dbt_project):
    _builds(dbt_project, [*ROWS, {**ROWS[0], "event_ts": "2025-03-01 00:00:00"}])
    dbt_project.test(select="assert_newest_events_are_no_stragglers")
    assert any("stragglers" in warning for warning in dbt_project.warnings)


def _fails_to_map(project, columns, mapping=None):
    path = project.root / "events.parquet"
    pq.write_table(pa.table(columns), path)
    vars = {"churn__events_path": str(path), "churn__event_columns": mapping}
    return project.build_fails(select="base_churn__events", command="run", vars=vars)


GOOD = {"user_id": ["u"], "event_type": ["view"], "event_ts": [datetime.datetime(2024, 1, 1)]}


def test_a_missing_required_column_lists_those_that_exist(dbt_project):
    columns = {"customer": ["u"], "event_type": ["view"], "Event TS": ["2024-01-01"]}
    message = _fails_to_map(dbt_project, columns)
    assert "churn__event_columns: got user_id for user_id" in message
    assert "customer, event_type, Event TS" in message
    assert "map user_id to one of them" in message


def test_a_mapping_to_a_column_that_does_not_exist(dbt_project):
    message = _fails_to_map(dbt_project, GOOD, {"amount": "total"})
    assert "churn__event_columns: got total for amount" in message
    assert "user_id, event_type, event_ts" in message


@pytest.mark.parametrize(
    ("name", "values", "type_name"),
    [
        ("event_ts", pa.array([1704067200], pa.int64()), "bigint"),
        ("event_ts", pa.array([1704067200.5], pa.float64()), "double"),
        ("event_ts", pa.array([datetime.time(10)], pa.time64("us")), "time"),
        ("event_ts", pa.array([True]), "boolean"),
        ("amount", pa.array([{"value": 1}]), "struct"),
        ("amount", pa.array([True]), "boolean"),
        ("quantity", pa.array([datetime.date(2024, 1, 1)]), "date"),
        ("rating", pa.array([[5]]), "[]"),
        ("user_id", pa.array([["u"]]), "varchar[]"),
        ("item_name", pa.array([b"\xff\xfe"], pa.binary()), "blob"),
    ],
    ids=lambda value: str(value)[:12],
)
def test_a_type_that_makes_no_sense_is_refused(dbt_project, name, values, type_name):
    message = _fails_to_map(dbt_project, {**GOOD, name: values})
    assert "churn__event_columns: got " + name + " of type " in message
    assert type_name in message
    assert "allowed: a column of type " in message


def test_a_file_that_does_not_exist_names_the_var(dbt_project):
    for name in ("churn__events_path", "churn__users_path"):
        vars = {
            "churn__events_path": dbt_project.events_parquet(ROWS),
            name: str(dbt_project.root / "nowhere.parquet"),
        }
        message = dbt_project.build_fails(select="path:models/staging", command="run", vars=vars)
        assert f"{name}: got " in message
        assert "there is no such file" in message


def test_a_table_that_does_not_exist_names_the_var(dbt_project):
    vars = {"churn__events_relation": "raw.events"}
    message = dbt_project.build_fails(select="base_churn__events", command="run", vars=vars)
    assert "churn__events_relation: got raw.events" in message
    assert '"warehouse"."raw"."events" does not exist' in message


def test_a_profile_column_that_does_not_exist_lists_those_that_do(dbt_project):
    dbt_project.load("users", pa.table({"user_id": ["u1"], "age": ["old"], "bag": [[1]]}))
    vars = {
        "churn__events_path": dbt_project.events_parquet(ROWS),
        "churn__users_relation": "users",
    }
    options = {"select": "base_churn__users", "command": "run"}
    message = dbt_project.build_fails(vars={**vars, "churn__profile_columns": ["town"]}, **options)
    assert "churn__profile_columns: got town" in message
    assert "user_id, age, bag" in message
    message = dbt_project.build_fails(vars={**vars, "churn__profile_columns": ["bag"]}, **options)
    assert "churn__profile_columns: got bag of type" in message


NASTY = {
    "emoji": "🛒👩‍👩‍👧 Überraschung",
    "quotes": 'it\'s "quoted" `back` \\ slash',
    "sql": "'); drop table stg_churn__events; --",
    "jinja": "{{ 1 / 0 }} {% raw %} {# no #}",
    "right_to_left": "שלום עולם مرحبا \u202e\u200f",
    "null_byte": "nul\x00byte",
    "control": "bell\x07 escape\x1b",
    "combining": "e\u0301" * 50,
    "zero_width": "\u200b\ufeff",
    "long": "word " * 200_000,
}


def test_nasty_text_survives_in_every_text_column(dbt_project):
    assert len(NASTY["long"]) == 1_000_000
    columns = ("user_id", "order_id", "item_id", "item_name", "category", "review_text")
    rows = [
        {**ROWS[0], **dict.fromkeys(columns, text), "event_type": f"{name} {text[:40]}"}
        for name, text in NASTY.items()
    ]
    vars = {"churn__qualifying_event_types": ["purchase"]}
    _builds(dbt_project, [*ROWS, *rows], vars=vars)
    stored = dict(
        dbt_project.query(
            "select split_part(event_type, ' ', 1), review_text from stg_churn__events"
            " where event_type not in ('purchase', 'view')"
        )
    )
    expected = {name: text.replace("\x00", "").strip() for name, text in NASTY.items()}
    # Text of nothing but zero-width blanks is no text, and so no user.
    del expected["zero_width"]
    assert stored == expected
    assert dbt_project.query("select reject_reason from stg_churn__rejected_events") == [
        ("null_user_id",)
    ]
    assert dbt_project.query(
        "select count(*) from stg_churn__events where user_id = item_name"
        " and item_name = category and category = order_id and order_id = review_text"
    ) == [(len(expected),)]


def test_nasty_event_types_roles_and_profiles(dbt_project):
    users = pa.table({"user_id": list(NASTY), 'it\'s "odd"': list(NASTY.values())})
    dbt_project.load("users", users)
    nasty_type = 'it\'s "odd"; --'
    vars = {
        "churn__users_relation": "users",
        "churn__qualifying_event_types": [nasty_type],
        "churn__event_type_roles": {nasty_type: "purchase"},
    }
    _builds(dbt_project, [ROWS[1], {**ROWS[0], "event_type": nasty_type}], vars=vars)
    assert dbt_project.query("select event_role from stg_churn__events order by event_ts") == [
        ("purchase",),
        ("view",),
    ]
    words = dict(dbt_project.query("select user_id, profile_text from stg_churn__users"))
    assert set(words) == set(NASTY)
    assert words["sql"] == "it s odd drop table stg churn events"
    assert words["emoji"] == "it s odd überraschung"
    assert words["zero_width"] == ""
    assert len(words["long"]) <= len("it s odd ") + 60
    parsed = dict(
        dbt_project.query(
            "select user_id, profile_json ->> '$.\"it''s \\\"odd\\\"\"' from stg_churn__users"
        )
    )
    assert parsed["quotes"] == NASTY["quotes"]


@pytest.mark.parametrize("seed", [1, 2])
def test_any_mix_of_values_reconciles(dbt_project, seed):
    rng = random.Random(seed)
    numbers = [None, 0.0, -0.0, 1.5, -3.0, 1e6, 2e6, float("nan"), float("inf"), float("-inf")]
    texts = [None, "", " ", "a", "A", " a ", *NASTY.values()][:12]
    times = [
        None,
        datetime.datetime(1, 1, 1),
        datetime.datetime(1970, 12, 31, 23, 59, 59),
        datetime.datetime(1971, 1, 1),
        datetime.datetime(2024, 1, 1, 10),
        datetime.datetime(2024, 1, 2),
        datetime.datetime(9999, 12, 31),
    ]
    rows = [
        {
            "user_id": rng.choice(["u1", "u2", *texts]),
            "event_type": rng.choice(["purchase", "return", "view", *texts]),
            "event_ts": rng.choice(times),
            "order_id": rng.choice(texts),
            "amount": rng.choice(numbers),
            "quantity": rng.choice(numbers),
            "rating": rng.choice(numbers),
        }
        for _ in range(3000)
    ]
    rows += [{**ROWS[0], "amount": 1.0}, ROWS[1]]
    _builds(dbt_project, rows)
    dbt_project.test(
        select="assert_accepted_plus_rejected_equals_raw stg_churn__events,test_type:generic"
    )
    assert dbt_project.query(
        "select count(*) from stg_churn__events"
        " where (event_role = 'return' and (amount < 0 or quantity < 0))"
        " or (event_role = 'purchase' and (amount < 0 or quantity < 0))"
        " or user_id is null or event_ts is null or event_type <> lower(trim(event_type))"
        " or not isfinite(amount) or not isfinite(quantity) or not isfinite(rating)"
    ) == [(0,)]
    assert dbt_project.query(
        "select count(distinct reject_reason) >= 8 from stg_churn__rejected_events"
    ) == [(True,)]
