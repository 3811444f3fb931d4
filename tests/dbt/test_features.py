"""Features and labels of known histories, and what does not depend on chance."""

from __future__ import annotations

import datetime
import math
from pathlib import Path

import duckdb
import pytest
import yaml

EXAMPLES = "+churn_examples"
NO_TESTS = ["--exclude-resource-type", "test", "unit_test"]
REPOSITORY = Path(__file__).resolve().parents[2]
MODELS = REPOSITORY / "dbt_project" / "models"
ONLINE_RETAIL = REPOSITORY.parent / "shared" / "data" / "online_retail.parquet"

LAST_CLOCK = {"user_id": "clock", "event_type": "purchase", "event_ts": "2024-03-01 10:00:00"}


def _build(project, rows, *, args=(), **settings):
    project.vars = {"churn__events_path": project.events_parquet(rows)}
    project.vars |= {f"churn__{name}": value for name, value in settings.items()}
    project.build(select=EXAMPLES, args=[*NO_TESTS, *args])


def _example(project, user_id="u1", cutoff="2024-02-10"):
    (row,) = project.table(
        f"select * from churn_examples where user_id = '{user_id}'"
        f" and cutoff_date = date '{cutoff}'"
    ).to_pylist()
    return row


def _feature_names():
    text = (MODELS / "marts" / "_examples__models.yml").read_text(encoding="utf-8")
    (model,) = yaml.safe_load(text)["models"]
    return [
        column["name"]
        for column in model["columns"]
        if column.get("config", {}).get("meta", {}).get("feature_group")
    ]


def _purchase(date, amount=None, item=None, **values):
    return {
        "user_id": "u1",
        "event_type": "purchase",
        "event_ts": f"{date} 12:00:00",
        "amount": amount,
        "item_id": item,
        **values,
    }


@pytest.fixture(scope="module")
def small_shop(module_dbt_project):
    """Three purchases ten and twenty days apart, ten days before the cutoff 2024-02-10."""
    rows = [
        _purchase("2024-01-01", 10.0, "a", quantity=2.0, category="x", discount_amount=0.0),
        _purchase("2024-01-11", 30.0, "a", quantity=3.0, category="x", discount_amount=10.0),
        _purchase("2024-01-31", 20.0, "b", quantity=5.0, category="y", discount_amount=0.0),
        _purchase("2024-02-01", -5.0, "b", quantity=-1.0),
        _purchase("2024-02-02", event_type="view", item="c"),
        _purchase("2024-02-03", event_type="campaign"),
        _purchase("2024-02-04", event_type="review", rating=2.0, review_text="Bad, bad, nice"),
        _purchase("2024-02-05", event_type="review", rating=5.0),
        {"user_id": "once", "event_type": "purchase", "event_ts": "2024-02-09 23:59:59"},
        LAST_CLOCK,
    ]
    _build(
        module_dbt_project,
        rows,
        training_cutoffs=["2024-02-10"],
        horizon_days=14,
    )
    return module_dbt_project


def test_features_of_a_known_history(small_shop):
    decayed = {days: sum(0.5 ** (age / days) for age in (40, 30, 10)) for days in (14, 30, 90)}
    expected = {
        "days_since_active": 10,
        "days_since_visit": 5,
        "days_since_return": 9,
        "days_since_view_or_cart": 8,
        "tenure_days": 40,
        "active_day_count_7d": 0,
        "active_day_count_14d": 1,
        "active_day_count_30d": 2,
        "active_day_count_365d": 3,
        "decayed_active_days_14d": decayed[14],
        "decayed_active_days_30d": decayed[30],
        "decayed_active_days_90d": decayed[90],
        "order_count_90d": 3,
        "active_day_share": 3 / 40,
        "active_days_per_30d": 30 * 4 / 70,
        "gap_mean_days": 15,
        "gap_median_days": 15,
        "gap_std_days": math.sqrt(50),
        "gap_variation": math.sqrt(50) / 15,
        "gap_longest_days": 20,
        "gap_last_days": 20,
        "gap_recent_mean_days": 15,
        "recency_over_gap_mean": 10 / 15,
        "recency_over_gap_longest": 0.5,
        "longer_gap_share": 1,
        "gap_ending_in_horizon_share": 2.5 / 3,
        "amount_30d": 50,
        "amount_90d": 60,
        "purchase_day_amount_mean": 20,
        "purchase_day_amount_std": 10,
        "purchase_day_amount_max": 30,
        "purchase_day_amount_last": 20,
        "last_amount_over_mean": 1,
        "order_event_count_mean": 1,
        "order_quantity_mean": 10 / 3,
        "unit_price_mean": 6,
        "category_count": 2,
        "top_category_share": 2 / 3,
        "category_concentration": 5 / 9,
        "item_count": 3,
        "item_concentration": (4 + 4 + 1) / 25,
        "repeat_item_share": 2 / 5,
        "return_count_90d": 1,
        "return_amount_share": 5 / 65,
        "view_count_30d": 1,
        "campaign_count_90d": 1,
        "days_since_campaign": 7,
        "review_count_365d": 2,
        "rating_count": 2,
        "rating_mean": 3.5,
        "rating_last": 5,
        "review_sentiment": -1 / 3,
        "discount_share": 10 / 70,
        "discounted_event_share": 1 / 3,
        "active_day_share_30_of_90d": 2 / 3,
        "amount_share_30_of_90d": 50 / 60,
        "gap_last_over_mean": 20 / 15,
        "activity_age_share": 80 / 120,
        "weekend_share": 0,
        "afternoon_share": 1,
        "top_weekday_share": 1 / 3,
        "profile_field_count": 0,
    }
    row = _example(small_shop)
    found = {name: row[name] for name in expected}
    assert found == pytest.approx(expected, abs=1e-6)
    entropy = 2 * 0.25 * math.log(0.25) + 0.5 * math.log(0.5)
    assert row["gap_clumpiness"] == pytest.approx(1 + entropy / math.log(3), abs=1e-4)


def test_one_event_leaves_the_unknown_null(small_shop):
    row = _example(small_shop, "once")
    assert row["days_since_active"] == 1
    assert row["behavior_text"].startswith("known 1 last 1 single days 1 ")
    for name in (
        "gap_mean_days",
        "gap_std_days",
        "recency_over_gap_mean",
        "gap_clumpiness",
        "amount_90d",
        "unit_price_mean",
        "discount_share",
        "order_quantity_mean",
        "rating_mean",
        "category_concentration",
        "days_since_return",
    ):
        assert row[name] is None, name
    assert row["category_count"] == 0
    assert row["review_text_recent"] == ""


def test_yaml_lists_the_features_that_the_sql_computes(small_shop):
    columns = small_shop.table("select * from int_features_windowed_to_cutoffs").column_names
    keys = ["user_id", "cutoff_date", "input_fingerprint"]
    assert columns == keys + _feature_names()
    types = small_shop.table("select * from churn_examples").schema
    assert {str(types.field(name).type) for name in _feature_names()} == {"double"}


def test_input_hash_tells_rows_apart(small_shop):
    rows = small_shop.query("select count(*), count(distinct input_hash) from churn_examples")
    assert rows[0][0] == rows[0][1] > 1


def test_windows_are_cut_at_the_observation_window(dbt_project):
    rows = [_purchase(f"2024-01-{day:02d}", 10.0, f"i{day}") for day in range(1, 32)]
    _build(
        dbt_project,
        [*rows, LAST_CLOCK],
        training_cutoffs=["2024-02-01"],
        observation_days=10,
        eligibility_days=10,
    )
    row = _example(dbt_project, cutoff="2024-02-01")
    assert row["tenure_days"] == row["active_day_count_90d"] == row["item_count"] == 10
    assert row["amount_365d"] == 100
    assert row["gap_longest_days"] == 1
    assert row["gap_clumpiness"] == 0


def test_subscriptions_work_without_a_purchase(dbt_project):
    rows = [
        {"user_id": "u1", "event_type": "Login", "event_ts": f"2024-01-{day:02d} 08:00:00"}
        for day in (1, 2, 3, 5, 9)
    ]
    _build(
        dbt_project,
        [*rows, LAST_CLOCK | {"event_type": "login"}],
        training_cutoffs=["2024-01-12"],
        qualifying_event_types=["login"],
    )
    row = _example(dbt_project, cutoff="2024-01-12")
    assert row["active_day_count_30d"] == row["qualifying_event_count_30d"] == 5
    assert row["amount_30d"] is None
    assert row["is_churned"]
    assert row["behavior_text"] == (
        "known 11 last 3 usual 2 longest 4 overdue days 5 month 5 quarter 5 visits 3 4 2 1 1"
    )


@pytest.mark.parametrize(
    ("returns_at", "is_churned"),
    [
        ("2024-02-11 23:59:59", True),
        ("2024-02-12 00:00:00", False),
        ("2024-02-12 00:00:01", False),
        ("2024-02-25 23:59:59", False),
        ("2024-02-26 00:00:00", True),
        ("2024-02-26 00:00:01", True),
    ],
)
def test_labels_at_the_bounds_of_the_horizon(horizon_shop, returns_at, is_churned):
    row = _example(horizon_shop, f"back {returns_at}")
    assert row["is_label_mature"] is True
    assert row["is_churned"] is is_churned


@pytest.fixture(scope="module")
def horizon_shop(make_dbt_project):
    """Users who come back at the bounds of [2024-02-12, 2024-02-26); data ends 2024-02-26."""
    moments = [
        f"2024-02-{day} {time}"
        for day, time in [
            ("11", "23:59:59"),
            ("12", "00:00:00"),
            ("12", "00:00:01"),
            ("25", "23:59:59"),
            ("26", "00:00:00"),
            ("26", "00:00:01"),
        ]
    ]
    rows = [_purchase("2024-02-01", user_id=f"back {moment}") for moment in moments]
    rows += [
        _purchase("2024-02-01", user_id=f"back {moment}") | {"event_ts": moment}
        for moment in moments
    ]
    # The bounds of eligibility, [2024-02-01, 2024-02-10) at the cutoff 2024-02-10.
    rows += [
        _purchase("x", user_id=user) | {"event_ts": moment}
        for user, moment in [
            ("start-1", "2024-01-31 23:59:59"),
            ("start+0", "2024-02-01 00:00:00"),
            ("start+1", "2024-02-01 00:00:01"),
            ("end-1", "2024-02-09 23:59:59"),
            ("end+0", "2024-02-10 00:00:00"),
            ("end+1", "2024-02-10 00:00:01"),
        ]
    ]
    project = make_dbt_project()
    _build(
        project,
        rows,
        training_cutoffs=["2024-02-10", "2024-02-11"],
        observation_days=60,
        eligibility_days=9,
        gap_days=2,
        horizon_days=14,
    )
    return project


def test_eligibility_at_its_bounds(horizon_shop):
    users = horizon_shop.query(
        "select user_id from churn_examples where cutoff_date = date '2024-02-10'"
        " and user_id not like 'back%' order by 1"
    )
    assert users == [("end-1",), ("start+0",), ("start+1",)]


def test_labels_are_null_until_the_horizon_lies_in_known_days(horizon_shop):
    found = horizon_shop.query(
        "select cutoff_date, is_label_mature, count(is_churned) > 0 from churn_examples"
        " group by 1, 2 order by 1"
    )
    assert found == [
        (datetime.date(2024, 2, 10), True, True),
        (datetime.date(2024, 2, 11), False, False),
        (datetime.date(2024, 2, 26), False, False),
    ]


def test_empty_build_passes_and_keeps_the_tables(horizon_shop):
    before = horizon_shop.query("select count(*) from int_inputs_hashed")
    horizon_shop.build(select=EXAMPLES, args=[*NO_TESTS, "--empty"])
    assert horizon_shop.query("select count(*) from int_inputs_hashed") == before


@pytest.fixture(scope="module")
def many_events(tmp_path_factory):
    """Two files with the same 60,000 events, in two orders and small row groups."""
    folder = tmp_path_factory.mktemp("many_events")
    paths = folder / "ordered.parquet", folder / "shuffled.parquet"
    with duckdb.connect() as connection:
        connection.execute(
            """
            create table events as
            select
                'u' || (hash(i) % 400) as user_id,
                case when hash(i, 1) % 20 = 0 then 'return' else 'purchase' end as event_type,
                timestamp '2024-01-01'
                + to_seconds(cast(hash(i, 2) % (150 * 86400) as bigint)) as event_ts,
                'o' || (hash(i, 3) % 9) as order_id,
                'i' || (hash(i, 4) % 300) as item_id,
                'item ' || chr(97 + cast(hash(i, 4) % 26 as integer)) || 'x' as item_name,
                'shelf ' || chr(97 + cast(hash(i, 5) % 9 as integer)) || 'y' as category,
                (hash(i, 6) % 100000) / 997.0 as amount,
                (hash(i, 7) % 50) / 7.0 as quantity,
                case when hash(i, 8) % 9 = 0 then (hash(i, 9) % 50) / 10.0 end as rating,
                case when hash(i, 8) % 90 = 0 then 'good ' || i end as review_text,
                (hash(i, 10) % 1000) / 99.0 as discount_amount
            from range(60000) as numbers(i)
            """
        )
        for path, order in zip(paths, ("event_ts", "hash(order_id, amount)"), strict=True):
            connection.execute(
                f"copy (from events order by {order}) to '{path}' (row_group_size 2048)"
            )
    return [str(path) for path in paths]


@pytest.mark.slow
def test_rows_do_not_depend_on_threads_or_input_order(make_dbt_project, many_events):
    hashes = []
    for path, threads in zip(many_events, (1, 4), strict=True):
        project = make_dbt_project()
        profiles = project.root / "profiles.yml"
        profile = yaml.safe_load(profiles.read_text(encoding="utf-8"))
        profile["churn_scoring"]["outputs"]["dev"]["settings"]["threads"] = threads
        profiles.write_text(yaml.safe_dump(profile), encoding="utf-8")
        project.vars = {
            "churn__events_path": path,
            "churn__training_cutoffs": {"every_days": 14},
            "churn__max_training_cutoffs": 5,
        }
        project.build(select=EXAMPLES, args=NO_TESTS)
        hashes.append(
            project.query(
                "select user_id, cutoff_date, behavior_text, review_text_recent, input_hash"
                " from churn_examples order by 1, 2"
            )
        )
    assert len(hashes[0]) > 1500
    assert hashes[0] == hashes[1]


@pytest.mark.slow
@pytest.mark.skipif(not ONLINE_RETAIL.exists(), reason="needs ../shared/data beside the repo")
def test_online_retail_has_the_known_population(dbt_project):
    dbt_project.vars = {
        "churn__events_path": str(ONLINE_RETAIL),
        "churn__eligibility_days": 180,
        "churn__horizon_days": 90,
        "churn__training_cutoffs": ["2011-09-01"],
    }
    dbt_project.build(select=EXAMPLES, args=NO_TESTS)
    dbt_project.test(
        select="assert_features_in_range assert_label_null_until_mature"
        " assert_every_eligible_user_has_one_example"
    )
    found = dbt_project.query(
        "select count(*), round(avg(cast(is_churned as integer)), 2) from churn_examples"
        " where cutoff_date = date '2011-09-01'"
    )
    assert found == [(2768, 0.39)]
