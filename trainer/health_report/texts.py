"""How the report writes numbers, dates and names; a dash where there is none."""

from __future__ import annotations

import math
import re
from datetime import date, datetime
from typing import Any

from markupsafe import Markup, escape

from trainer.report.words import MISSING

SHORT_ID = 8
_DATE = re.compile(r"\b\d{4}-\d{2}-\d{2}\b")
LEVEL_WORDS = {"fine": "fine", "look": "look", "act": "act", "unknown": "not known"}
SEVERITY_WORDS = {"ok": "fine", "warn": "warning", "error": "error"}
CAUSES = {
    "behaviour": "what the customer did",
    "model": "another model",
    "calibration": "another calibration",
}
CHECK_TITLES = {
    "age": "Age of the champion",
    "labels": "Newly matured labels",
    "drift": "Drift",
    "decay": "Decay of quality",
    "no_champion": "No champion",
}
KIND_TITLES = {"bert": "BERT", "gbm": "gradient boosting", "stack": "weighted sum"}


def number(value: Any) -> float | None:
    """Return a finite number, or None for anything else."""
    if isinstance(value, bool) or value is None:
        return None
    try:
        found = float(value)
    except (TypeError, ValueError):
        return None
    return found if math.isfinite(found) else None


def percent(value: Any, decimals: int = 1) -> str:
    """Write a share."""
    found = number(value)
    return MISSING if found is None else f"{found:.{decimals}%}"


def points(value: Any) -> str:
    """Write a difference of shares in percentage points, with its sign."""
    found = number(value)
    return MISSING if found is None else f"{100.0 * found:+.1f}".replace("-", "\N{MINUS SIGN}")


def metric(value: Any, decimals: int = 3) -> str:
    """Write a metric."""
    found = number(value)
    return MISSING if found is None else f"{found:.{decimals}f}"


def amount(value: Any) -> str:
    """Write a mean of whatever unit."""
    found = number(value)
    if found is None:
        return MISSING
    if abs(found) >= 1000.0:
        return f"{found:,.0f}"
    return f"{found:.3g}"


def count(value: Any) -> str:
    """Write a count."""
    found = number(value)
    return MISSING if found is None else f"{found:,.0f}"


def day(value: Any) -> str:
    """Write a date."""
    if isinstance(value, datetime):
        value = value.date()
    return value.isoformat() if isinstance(value, date) else MISSING


def moment(value: Any) -> str:
    """Write a time to the minute, UTC."""
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M")
    return day(value)


def short_id(value: Any) -> str:
    """Write the beginning of a bundle's id."""
    return str(value)[:SHORT_ID] if value else MISSING


def plural(number_of: int, one: str, many: str | None = None) -> str:
    """Write a count with its noun."""
    return f"{number_of:,} {one if number_of == 1 else many or one + 's'}"


def joined(parts: list[str]) -> str:
    """Join parts of a sentence."""
    if len(parts) < 2:
        return "".join(parts)
    return f"{', '.join(parts[:-1])} and {parts[-1]}"


def ticked(text: str) -> Markup:
    """Write what stands between backticks as code, and dates unbroken; everything is escaped."""
    parts = text.split("`")
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if place % 2 else _with_whole_dates(part)
        for place, part in enumerate(parts)
    )


def _with_whole_dates(text: str) -> Markup:
    """Escape a text and keep its dates from being broken at the end of a line."""
    return Markup(_DATE.sub(r'<span class="date">\g<0></span>', str(escape(text))))


def capitalize_first(text: str) -> str:
    """Begin with a capital letter; the rest stays."""
    return f"{text[:1].upper()}{text[1:]}"


FILTERS = {
    "capitalize_first": capitalize_first,
    "percent": percent,
    "points": points,
    "metric": metric,
    "amount": amount,
    "count": count,
    "day": day,
    "moment": moment,
    "short_id": short_id,
    "ticked": ticked,
    "plural": plural,
}
