"""A small shop whose customers stop one by one; settings under which training on it is quick."""

from __future__ import annotations

import datetime
from typing import Any

import numpy as np

START = datetime.datetime(2024, 1, 1, 9)
DAYS = 300
NAMES = [
    "whole milk",
    "rye bread",
    "caf\u00e9 \u2615",
    "'; drop table users; --",
    "\u05dc\u05d7\u05dd",
]
REVIEWS = [
    "great, would buy again \U0001f600",
    "late and broken",
    'said "never again"',
    "x" * 5_000,
]
SHOP_VARS = {
    "churn__eligibility_days": 60,
    "churn__horizon_days": 21,
    "churn__training_cutoffs": {"every_days": 14},
}
SMALL_TRAINING = {
    "FIT_EPOCHS": "1",
    "FIT_PRETRAIN_EPOCHS": "1",
    "FIT_MIN_EXAMPLES": "0",
    "FIT_NUMERIC_EPOCHS": "3",
    "FIT_MAX_EPOCH_EXAMPLES": "800",
    "FIT_MAX_PRETRAIN_EXAMPLES": "400",
    "FIT_MAX_TOKENS": "64",
    "FIT_HIDDEN_SIZE": "32",
    "EVALUATE_NUM_BOOTSTRAP": "50",
}


def shop_events(num_users: int, seed: int = 7) -> list[dict[str, Any]]:
    """Users with a rhythm of their own, of whom some stop at a random day."""
    generator = np.random.default_rng(seed)
    events: list[dict[str, Any]] = []
    for user in range(num_users):
        gap = float(generator.uniform(3, 25))
        last_day = DAYS if generator.random() < 0.6 else float(generator.uniform(40, DAYS))
        day = float(generator.uniform(0, 40))
        while day < last_day:
            moment = START + datetime.timedelta(days=day)
            order = f"o{user}-{len(events)}"
            for _ in range(int(generator.integers(1, 4))):
                item = int(generator.integers(len(NAMES)))
                events.append(
                    {
                        "user_id": f"u{user:03d}",
                        "event_type": "purchase",
                        "event_ts": moment.isoformat(" "),
                        "order_id": order,
                        "item_id": f"i{item}",
                        "item_name": NAMES[item],
                        "category": "food",
                        "amount": round(float(generator.gamma(2, 10)), 2),
                        "quantity": 1.0,
                    }
                )
            if generator.random() < 0.1:
                events.append(
                    {
                        "user_id": f"u{user:03d}",
                        "event_type": "review",
                        "event_ts": moment.isoformat(" "),
                        "rating": float(generator.integers(1, 6)),
                        "review_text": REVIEWS[int(generator.integers(len(REVIEWS)))],
                    }
                )
            day += float(generator.exponential(gap)) + 0.5
    return events
