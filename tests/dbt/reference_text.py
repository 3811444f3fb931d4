"""The text of docs/text_spec_v1.md in plain Python, written without a look at the SQL's steps.

It is the executable form of the specification: the tests require that the warehouse's text is
the same, byte for byte. Events are mappings with the columns of ``stg_churn__events``.
"""

from __future__ import annotations

import dataclasses
import datetime
import itertools
import math
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Event = Mapping[str, Any]

STOP_WORDS = frozenset(["and", "the", "of", "with", "for", "in", "on", "to", "by", "or"])
DAY_BOUNDS = [*range(15), 15, 17, 19, 21, 24, 28, 32, 38, 45, 60, 75, 90, 120, 150, 180]
DAY_BOUNDS += [240, 300, 365, 545, 730, 1095, 1825]
COUNT_BOUNDS = [*range(13), 13, 16, 20, 25, 30, 40, 50, 75, 100, 150, 200, 300, 500, 1000]
AMOUNT_BOUNDS = [0, 1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 70, 100, 150, 200, 300, 500, 700]
AMOUNT_BOUNDS += [1000, 1500, 2000, 3000, 5000, 7000, 10000, 20000, 50000, 100000, 1000000]

FULL_VISITS = 4
HALF_VISITS = 8
WORDS_PER_NAME = 2
PROFILE_WORDS = 24


@dataclasses.dataclass(frozen=True)
class TextSettings:
    """The vars that the text depends on."""

    observation_days: int = 365
    qualifying_event_types: tuple[str, ...] = ("purchase",)
    max_visits: int = 16
    max_words_per_visit: int = 4
    max_reviews: int = 3
    max_review_chars: int = 400


def bucket(value: float, bounds: Sequence[int]) -> str:
    """Return the start of the bucket that the value lies in."""
    return str(max(bound for bound in bounds if bound <= value))


def lower(text: str) -> str:
    """Lower case one code point at a time, as Unicode's simple mapping does."""
    return "".join("i" if char == "\u0130" else char.lower() for char in text)


def words_of(text: str | None) -> list[str]:
    """Return the clean words of a text."""
    runs: list[str] = []
    inside = False
    for char in lower(unicodedata.normalize("NFC", text or "")):
        kind = unicodedata.category(char)[0]
        if kind in "LN" and not inside:
            runs.append(char)
            inside = True
        elif kind in "LNM" and inside:
            runs[-1] += char
        else:
            inside = False
    return [
        word[:24]
        for word in runs
        if len(word.encode()) > 1
        and not all(unicodedata.category(char)[0] == "N" for char in word)
        and word not in STOP_WORDS
    ]


def units(value: float | None) -> int | None:
    """Return a value in whole 1/10,000, half away from zero."""
    if value is None:
        return None
    return int(math.copysign(math.floor(abs(value * 10000) + 0.5), value))


def behavior_text(
    events: Iterable[Event], cutoff: datetime.date, settings: TextSettings, profile_text: str = ""
) -> str:
    """Return the behavior_text of one user at one cutoff.

    Args:
        events: All events of the user, in any order, also those outside the window.
        cutoff: The cutoff date.
        settings: The vars.
        profile_text: The user's clean profile words.
    """
    window = _observed(events, cutoff, settings)
    days: dict[datetime.date, list[Event]] = defaultdict(list)
    for event in window:
        days[event["event_date"]].append(event)
    visits = {
        date: [event for event in found if event["event_role"] != "campaign"]
        for date, found in days.items()
    }
    visits = {date: found for date, found in visits.items() if found}
    categories = {
        event["category"] for found in visits.values() for event in found if event["category"]
    }
    only_category = categories.pop() if len(categories) == 1 else None
    head = _standing(window, visits, cutoff, settings, profile_text, only_category)
    return " ".join([*head, "visits", *_visits(visits, cutoff, settings, only_category)])


def review_text(events: Iterable[Event], cutoff: datetime.date, settings: TextSettings) -> str:
    """Return the review_text_recent of one user at one cutoff."""
    found = set()
    for event in _observed(events, cutoff, settings):
        line = _one_line(event["review_text"], settings.max_review_chars)
        if line:
            found.add((event["event_ts"], units(event["rating"]), line))
    newest = sorted(found, key=lambda review: review[2].encode())
    newest.sort(key=lambda review: -math.inf if review[1] is None else review[1], reverse=True)
    newest.sort(key=lambda review: review[0], reverse=True)
    return " | ".join(
        line if rating is None else f"rating {_rating(rating)}: {line}"
        for _, rating, line in newest[: settings.max_reviews]
    )


def _observed(
    events: Iterable[Event], cutoff: datetime.date, settings: TextSettings
) -> list[Event]:
    start = cutoff - datetime.timedelta(days=settings.observation_days)
    return [event for event in events if start <= event["event_date"] < cutoff]


def _standing(
    window: list[Event],
    visits: Mapping[datetime.date, list[Event]],
    cutoff: datetime.date,
    settings: TextSettings,
    profile_text: str,
    only_category: str | None,
) -> list[str]:
    active = sorted(
        {
            event["event_date"]
            for event in window
            if event["event_type"] in settings.qualifying_event_types
        }
    )
    ages = [(cutoff - date).days for date in active]
    gaps = [(later - earlier).days for earlier, later in itertools.pairwise(active)]
    recency = ages[-1]
    text = ["known", bucket(max((cutoff - e["event_date"]).days for e in window), DAY_BOUNDS)]
    text += profile_text.split(" ")[:PROFILE_WORDS] if profile_text else []
    text += words_of(only_category)[:WORDS_PER_NAME]
    text += ["last", bucket(recency, DAY_BOUNDS)]
    if gaps:
        text += ["usual", bucket(sum(gaps) / len(gaps), DAY_BOUNDS)]
    if len(gaps) > 1:
        text += ["longest", bucket(max(gaps), DAY_BOUNDS)]
    text.append(_lateness(recency, gaps))
    text += ["days", bucket(len(active), COUNT_BOUNDS)]
    text += ["month", bucket(sum(age <= 30 for age in ages), COUNT_BOUNDS)]
    text += ["quarter", bucket(sum(age <= 90 for age in ages), COUNT_BOUNDS)]

    spends = [spend for found in visits.values() if (spend := _spend(found)) is not None]
    if spends:
        bought = sum(event["event_role"] == "purchase" for event in window)
        text += ["spend", bucket(sum(spends) / (len(spends) * 10000), AMOUNT_BOUNDS)]
        text += ["items", bucket(bought / len(spends), COUNT_BOUNDS)]
    for key, role in (("returns", "return"), ("campaigns", "campaign")):
        if count := sum(event["event_role"] == role for event in window):
            text += [key, bucket(count, COUNT_BOUNDS)]
    ratings = [rated for event in window if (rated := units(event["rating"])) is not None]
    if ratings:
        mean = sum(ratings) / len(ratings)
        rounded = int(math.copysign(math.floor(abs(mean) + 0.5), mean))
        text += ["rating", _rating(rounded)]
    return text


def _lateness(recency: int, gaps: list[int]) -> str:
    if not gaps:
        return "single"
    lateness = recency * len(gaps) / sum(gaps)
    for bound, word in ((0.5, "early"), (1, "due"), (1.5, "late"), (2.5, "overdue"), (5, "lapsed")):
        if lateness < bound:
            return word
    return "gone"


def _visits(
    visits: Mapping[datetime.date, list[Event]],
    cutoff: datetime.date,
    settings: TextSettings,
    only_category: str | None,
) -> list[str]:
    spends = [spend for found in visits.values() if (spend := _spend(found)) is not None]
    total = sum(len(found) for found in visits.values())
    text: list[str] = []
    newer = cutoff
    for position, date in enumerate(sorted(visits, reverse=True)[: settings.max_visits]):
        found = visits[date]
        text.append(bucket((newer - date).days, DAY_BOUNDS))
        newer = date
        text += _kind(found, settings)

        size = None
        if sum(spends) > 0:
            if (spend := _spend(found)) is not None:
                size = spend * len(spends) / sum(spends)
        else:
            size = len(found) * len(visits) / total
        text += _size(size)

        wanted = settings.max_words_per_visit
        if position >= HALF_VISITS:
            wanted = 0
        elif position >= FULL_VISITS:
            wanted = (wanted + 1) // 2
        if position < HALF_VISITS:
            text += _content(found, settings, only_category)[:wanted]
    return text


def _spend(found: list[Event]) -> int | None:
    known = [
        value
        for event in found
        if event["event_role"] == "purchase" and (value := units(event["amount"])) is not None
    ]
    return sum(known) if known else None


def _kind(found: list[Event], settings: TextSettings) -> list[str]:
    roles = {event["event_role"] for event in found}
    qualifying = any(event["event_type"] in settings.qualifying_event_types for event in found)
    text: list[str] = []
    if qualifying and len(settings.qualifying_event_types) == 1:
        pass
    elif "purchase" in roles:
        text.append("bought")
    elif "cart" in roles:
        text.append("carted")
    elif "view" in roles:
        text.append("viewed")
    elif not roles & {"return", "review"}:
        types = [event["event_type"] for event in found if event["event_role"] == "other"]
        text += words_of(max(types, key=lambda name: name.encode()))[:2]
    return text + [
        word for role, word in (("return", "returned"), ("review", "reviewed")) if role in roles
    ]


def _size(size: float | None) -> list[str]:
    if size is None or 0.67 <= size < 1.5:
        return []
    if size < 0.67:
        return ["tiny" if size < 0.33 else "small"]
    return ["large" if size < 3 else "huge"]


def _content(found: list[Event], settings: TextSettings, only_category: str | None) -> list[str]:
    names: list[str] = []
    if only_category is None:
        by_category: dict[str, list[Event]] = defaultdict(list)
        for event in found:
            if event["category"] is not None:
                by_category[event["category"]].append(event)
        names += _top(list(by_category.items()), settings)
    by_item: dict[str, list[Event]] = defaultdict(list)
    for event in found:
        key = event["item_id"] if event["item_id"] is not None else event["item_name"]
        if key is not None:
            by_item[key].append(event)
    named = []
    for group in by_item.values():
        candidates = [event["item_name"] for event in group if event["item_name"] is not None]
        if candidates:
            named.append((min(candidates, key=lambda name: name.encode()), group))
    names += _top(named, settings)

    text: list[str] = []
    for name in names:
        text += [word for word in words_of(name)[:WORDS_PER_NAME] if word not in text]
    return text


def _top(groups: list[tuple[str, list[Event]]], settings: TextSettings) -> list[str]:
    def rank(group: tuple[str, list[Event]]) -> tuple[int, int, bytes]:
        name, found = group
        amount = sum(units(event["amount"]) or 0 for event in found)
        return -amount, -len(found), name.encode()

    return [name for name, _ in sorted(groups, key=rank)[: settings.max_words_per_visit]]


def _one_line(text: str | None, max_chars: int) -> str:
    kept = [
        " " if unicodedata.category(char)[0] in "CZ" else char
        for char in lower(unicodedata.normalize("NFC", text or ""))
    ]
    joined = " ".join(part for part in "".join(kept).split(" ") if part)
    return joined[:max_chars].strip(" ")


def _rating(rating_units: int) -> str:
    tenths = (abs(rating_units) + 500) // 1000
    sign = "-" if rating_units <= -500 else ""
    return f"{sign}{tenths // 10}" + (f".{tenths % 10}" if tenths % 10 else "")
