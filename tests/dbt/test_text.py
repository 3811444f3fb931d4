"""The warehouse's text is that of docs/text_spec_v1.md, byte for byte."""

from __future__ import annotations

import datetime
import random
from collections import defaultdict

import pytest

from tests.dbt.reference_text import TextSettings, behavior_text, review_text

EXAMPLES = "+churn_examples"
NO_TESTS = ["--exclude-resource-type", "test", "unit_test"]
START = datetime.datetime(2024, 1, 1)

NAMES = [
    "Whole Milk 2 L",
    "BREAD & butter",
    "Ünïcode Crème brûlée",
    "Cafe\u0301 noir",  # a combining accent: the same as é
    "🧀 Cheese 🧀",
    "👨\u200d👩\u200d👧 family-pack",
    "❤\ufe0f hearts",
    "שוקולד מריר",
    "شوكولاتة داكنة",
    "द्वार बड़ा",
    "茶",
    "緑茶 パック",
    "İstanbul ΣΟΦΟΣ",
    'it\'s "quoted" `x`',
    "'; drop table users; --",
    "{{ config() }} {# no #}",
    "50g 100 200 ½ x²",
    "a b c 1 2 3",
    "the of and",
    "supercalifragilisticexpialidociousness",
    "tab\there\nnew line",
    "a|b\\c/d",
    "Milk whole",
    None,
]
CATEGORIES = ["Dairy & Eggs", "dairy", "Pâtisserie", "חלב", "🎁", "Home/Garden", "United Kingdom"]
REVIEWS = [
    "Great!",
    "  two\n\nlines\tand\u00a0space ",
    "Terrible, BROKE after 1 day 😡😡",
    "מצוין, ממליץ",
    "right\u202eleft\u202c mark",
    "x" * 50 + " " + "é" * 40,
    "🙂" * 30,
    "' or 1=1; --",
    "   ",
    None,
]
TYPES = ["purchase"] * 6 + ["return", "view", "cart", "review", "campaign", "login", "Play_Song"]


def _random_events(seed: int, num_users: int, num_days: int) -> list[dict[str, object]]:
    rng = random.Random(seed)
    rows = []
    for user in range(num_users):
        categories = CATEGORIES[:1] if user % 4 == 0 else [*CATEGORIES, None]
        for _ in range(rng.choice([1, 2, 5, 20, 60])):
            kind = rng.choice(TYPES)
            moment = START + datetime.timedelta(
                days=rng.randrange(num_days), seconds=rng.choice([0, 1, 43_200, 86_399])
            )
            name = rng.choice(NAMES)
            rows.append(
                {
                    "user_id": f"u{user:03d}",
                    "event_type": kind,
                    "event_ts": moment,
                    "order_id": rng.choice([None, f"o{moment:%m%d}", "x"]),
                    "item_id": rng.choice([None, f"i{NAMES.index(name)}", "shared"]),
                    "item_name": name,
                    "category": rng.choice(categories),
                    "amount": rng.choice([None, 0.0, 1.0, 9.99, 10.0, 120.5, 999.99])
                    if user % 5
                    else None,
                    "quantity": rng.choice([None, 1.0, 3.0, -1.0]),
                    "rating": rng.choice([None, None, 1.0, 4.0, 4.5, 3.75, 5.0]),
                    "review_text": rng.choice(REVIEWS) if kind == "review" else None,
                }
            )
    return rows


def _accepted_events(project):
    columns = (
        "user_id, event_type, event_role, event_date, event_ts, item_id, item_name, category,"
        " amount, rating, review_text"
    )
    by_user = defaultdict(list)
    for row in project.query(f"select {columns} from stg_churn__events"):
        event = dict(zip(columns.replace(" ", "").split(","), row, strict=True))
        by_user[event["user_id"]].append(event)
    return by_user


@pytest.mark.parametrize(
    "settings",
    [
        TextSettings(observation_days=90, max_review_chars=20),
        TextSettings(
            observation_days=45,
            qualifying_event_types=("login", "purchase", "view"),
            max_visits=6,
            max_words_per_visit=7,
            max_reviews=1,
        ),
        TextSettings(observation_days=60, max_visits=1, max_words_per_visit=0, max_reviews=0),
    ],
    ids=["one-type", "three-types", "least"],
)
def test_text_is_the_reference_text(dbt_project, settings):
    rows = _random_events(seed=settings.observation_days, num_users=40, num_days=120)
    dbt_project.vars = {
        "churn__events_path": dbt_project.events_parquet(rows),
        "churn__observation_days": settings.observation_days,
        "churn__eligibility_days": 40,
        "churn__horizon_days": 7,
        "churn__qualifying_event_types": list(settings.qualifying_event_types),
        "churn__max_visits": settings.max_visits,
        "churn__max_words_per_visit": settings.max_words_per_visit,
        "churn__max_reviews": settings.max_reviews,
        "churn__max_review_chars": settings.max_review_chars,
        "churn__training_cutoffs": ["2024-02-01", "2024-03-15", "2024-04-10"],
    }
    dbt_project.build(select=EXAMPLES, args=NO_TESTS)
    events = _accepted_events(dbt_project)
    found = dbt_project.query(
        "select user_id, cutoff_date, behavior_text, review_text_recent from churn_examples"
    )
    assert len(found) > 60
    for user_id, cutoff, text, reviews in found:
        assert text == behavior_text(events[user_id], cutoff, settings), (user_id, cutoff)
        assert reviews == review_text(events[user_id], cutoff, settings), (user_id, cutoff)
        assert "  " not in text
        assert text == text.strip()
    if settings.max_reviews:
        assert any(reviews for *_, reviews in found)


def test_profile_and_reviews_read_as_specified(dbt_project):
    day = "2024-01-{:02d} 12:00:00"
    base = {"user_id": "u1", "event_type": "purchase", "amount": 20.0, "category": "Dairy"}
    rows = [
        {**base, "event_ts": day.format(1), "item_name": "Milk"},
        {**base, "event_ts": day.format(8), "item_name": "Butter", "amount": 61.0},
        {**base, "event_ts": day.format(15), "item_name": "Milk Milk", "amount": 2.0},
        {**base, "event_ts": day.format(15), "event_type": "review", "amount": None}
        | {"rating": 4.5, "review_text": "Fresh,\n but LATE", "item_name": None},
        {"user_id": "u2", "event_type": "purchase", "event_ts": "2024-02-10 00:00:00"},
    ]
    dbt_project.vars = {
        "churn__events_path": dbt_project.events_parquet(rows),
        "churn__training_cutoffs": ["2024-01-18"],
        "churn__horizon_days": 7,
    }
    dbt_project.build(select=EXAMPLES, args=NO_TESTS)
    ((text, reviews, sentiment),) = dbt_project.query(
        "select behavior_text, review_text_recent, review_sentiment from churn_examples"
        " where cutoff_date = date '2024-01-18'"
    )
    assert text == (
        "known 17 dairy last 3 usual 7 longest 7 early days 3 month 3 quarter 3 spend 20 items 1"
        " rating 4.5 visits 3 reviewed tiny milk 7 large butter 7 milk"
    )
    assert reviews == "rating 4.5: fresh, but late"
    assert sentiment == 0.0  # fresh against late


def test_a_megabyte_of_review_is_cut(dbt_project):
    base = {"user_id": "u1", "event_type": "purchase"}
    rows = [
        {**base, "event_ts": "2024-01-01 10:00:00", "review_text": "ab " * 350_000},
        {**base, "event_ts": "2024-02-10 10:00:00"},
    ]
    dbt_project.vars = {
        "churn__events_path": dbt_project.events_parquet(rows),
        "churn__training_cutoffs": ["2024-01-18"],
        "churn__max_review_chars": 10,
    }
    dbt_project.build(select=EXAMPLES, args=NO_TESTS)
    texts = dbt_project.query("select distinct review_text_recent from churn_examples")
    assert texts == [("ab ab ab a",)]
