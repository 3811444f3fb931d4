"""Events of a made-up shop that stays the same but for what is done to it on known days.

Customers arrive at a steady rate, buy at a rhythm of their own and stop after an exponential
time, so that without a cause nothing drifts and the base rate of churn is steady.
"""

from __future__ import annotations

import dataclasses
import datetime
from typing import Any

import numpy as np
import pyarrow as pa

DAY = datetime.timedelta(days=1)
CATEGORIES = ("dairy", "bakery", "produce", "frozen", "household", "garden")
NO_DAY = datetime.date.max


@dataclasses.dataclass(frozen=True, kw_only=True)
class Causes:
    """What is done to the shop, and from which day on; a day that never comes is no cause."""

    prices_rise: datetime.date = NO_DAY
    """Amounts are four times what they were."""
    views_stop: datetime.date = NO_DAY
    """No more `view` events."""
    customers_leave: datetime.date = NO_DAY
    """A third of all customers stop on this day."""
    feed_stops: datetime.date = NO_DAY
    """No event at all."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShopConfig:
    """Size and rhythm of the shop; the shop opens long before `first_day` and is in balance."""

    first_day: datetime.date = datetime.date(2024, 1, 1)
    num_days: int = 300
    arrivals_per_day: float = 3.0
    mean_lifetime_days: float = 120.0
    seed: int = 0


def shop_events(config: ShopConfig, causes: Causes) -> pa.Table:
    """Return the events of the input contract, each with the day on which it is there.

    Args:
        config: Size and rhythm.
        causes: What happens to the shop.

    Returns:
        Columns user_id, event_type, event_ts, order_id, item_id, item_name, category, amount,
        quantity, rating, review_text and `arrives_on`, the first date whose nightly load has it.
    """
    generator = np.random.default_rng(config.seed)
    opening = config.first_day - 4 * round(config.mean_lifetime_days) * DAY
    last_day = config.first_day + config.num_days * DAY
    num_days = (last_day - opening).days
    rows: list[dict[str, Any]] = []
    for number in range(generator.poisson(config.arrivals_per_day * num_days)):
        arrived = float(generator.uniform(0, num_days))
        gap = float(generator.gamma(3.0, 2.5)) + 1.0
        stopped = arrived + float(generator.exponential(config.mean_lifetime_days))
        is_leaver = generator.random() < 1 / 3
        own = np.random.default_rng([config.seed, number])  # what one does moves nobody else's dice
        if is_leaver and causes.customers_leave != NO_DAY:
            stopped = min(stopped, (causes.customers_leave - opening).days)
        rows += _events_of(f"c{number:05d}", opening, arrived, min(stopped, num_days), gap, own)
    kept = [row for row in rows if config.first_day <= row["event_ts"].date() < last_day]
    return _as_table([row for row in kept if _happens(row, causes)], causes)


def _events_of(
    user: str,
    opening: datetime.date,
    arrived: float,
    stopped: float,
    gap: float,
    generator: np.random.Generator,
) -> list[dict[str, Any]]:
    """Return one customer's events from arrival until they stop."""
    start = datetime.datetime.combine(opening, datetime.time())
    rows: list[dict[str, Any]] = []
    tastes = generator.choice(len(CATEGORIES), size=3, replace=False)
    day = arrived
    while day < stopped:
        moment = start + datetime.timedelta(days=day)
        order = f"{user}-{len(rows)}"
        base = {"user_id": user, "event_ts": moment.replace(microsecond=0)}
        items = [int(generator.integers(40)) for _ in range(int(generator.integers(1, 4)))]
        for item in items:
            category = CATEGORIES[tastes[item % 3]]
            named = {"item_id": f"i{item}", "item_name": f"{category} no {item}"}
            rows.append({**base, **named, "event_type": "view", "category": category})
            bought = {"order_id": order, "quantity": 1.0, "category": category}
            amount = round(float(generator.gamma(2.0, 8.0)) + 0.5, 2)
            rows.append({**base, **named, **bought, "event_type": "purchase", "amount": amount})
        if generator.random() < 0.08:
            rating = float(generator.integers(1, 6))
            words = "very good, thank you" if rating > 3 else "late and broken"
            rows.append({**base, "event_type": "review", "rating": rating, "review_text": words})
        day += float(generator.exponential(gap)) + 0.3
    return rows


def _happens(row: dict[str, Any], causes: Causes) -> bool:
    """Return whether an event takes place."""
    date = row["event_ts"].date()
    is_view_too_late = row["event_type"] == "view" and date >= causes.views_stop
    return not is_view_too_late and date < causes.feed_stops


def _as_table(rows: list[dict[str, Any]], causes: Causes) -> pa.Table:
    """Return rows in order of time, with what the causes do to them."""
    types = {
        **dict.fromkeys(("user_id", "event_type"), pa.string()),
        "event_ts": pa.timestamp("us"),
        **dict.fromkeys(("order_id", "item_id", "item_name", "category"), pa.string()),
        **dict.fromkeys(("amount", "quantity", "rating"), pa.float64()),
        "review_text": pa.string(),
        "arrives_on": pa.date32(),
    }
    for row in rows:
        date = row["event_ts"].date()
        row["arrives_on"] = date + DAY
        if "amount" in row and date >= causes.prices_rise:
            row["amount"] = round(4 * row["amount"], 2)
    rows.sort(key=lambda row: (row["event_ts"], row["user_id"]))
    columns = [pa.array([row.get(name) for row in rows], type_) for name, type_ in types.items()]
    return pa.table(columns, names=list(types))
