"""A check of the gate: its number, its limit and whether it passed; and all of them together."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from trainer.errors import QualityGateError
from trainer.runs import finite_or_none

NEXT_HINT = (
    "look at the report, then change the data or settings; "
    "`churn-train models promote BUNDLE --override --reason '...'` promotes it all the same"
)
T = TypeVar("T")


@dataclasses.dataclass(frozen=True, kw_only=True)
class GateCheck:
    """One question that the gate asks."""

    name: str
    value: float | None
    """What was found; None where there is no number."""
    limit: float | None
    """What it was compared with."""
    is_passed: bool
    message: str
    """Number and limit in words."""
    is_checked: bool = True
    """False where the check could not be made."""
    detail: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Whatever else was found; JSON-ready."""

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready mapping, undefined numbers as None."""
        document: dict[str, Any] = finite_or_none(dataclasses.asdict(self))
        return document


@dataclasses.dataclass(frozen=True, kw_only=True)
class GateVerdict:
    """What the gate found out about a candidate."""

    bundle_id: str
    checks: tuple[GateCheck, ...]
    expected_champion: str | None
    """Whom the candidate was compared with; None before the first champion."""

    @property
    def is_passed(self) -> bool:
        """Whether every check passed."""
        return not self.failed

    @property
    def failed(self) -> tuple[GateCheck, ...]:
        """The checks that did not pass."""
        return tuple(check for check in self.checks if not check.is_passed)

    def to_dicts(self) -> list[dict[str, Any]]:
        """Return the checks as the registry logs them."""
        return [check.to_dict() for check in self.checks]

    def error(self) -> QualityGateError | None:
        """Return why the candidate is refused; None when it passed."""
        if self.is_passed:
            return None
        told = "; ".join(f"{check.name}: {check.message}" for check in self.failed)
        return QualityGateError(
            f"not promoted, {len(self.failed)} of {len(self.checks)} checks of the gate refuse "
            f"bundle {self.bundle_id}: {told}. Next: {NEXT_HINT}",
            facts={check.name: _nan(check.value) for check in self.checks},
        )


def at_least(
    name: str,
    value: float | None,
    limit: float,
    what: str,
    detail: Mapping[str, Any] | None = None,
) -> GateCheck:
    """Return a check that a number reaches a bound; an undefined number breaks none.

    Args:
        name: Of the check.
        value: The number, at the kind end of its interval.
        limit: The least that passes.
        what: The number in words; goes before it.
        detail: Whatever else was found.
    """
    message = f"{what} {_text(value, limit)}; at least {_text(limit, limit)}"
    return _compare(name, value, limit, message, detail, 1.0)


def at_most(
    name: str,
    value: float | None,
    limit: float,
    what: str,
    detail: Mapping[str, Any] | None = None,
) -> GateCheck:
    """Return a check that a number keeps below a bound; see ``at_least``."""
    message = f"{what} {_text(value, limit)}; at most {_text(limit, limit)}"
    return _compare(name, value, limit, message, detail, -1.0)


def not_checked(name: str, why: str, unchecked: str) -> GateCheck:
    """Return a check that could not be made.

    Args:
        name: Of the check.
        why: What is missing, and what to do about it.
        unchecked: ``gate.unchecked``: whether that passes.
    """
    return GateCheck(
        name=name,
        value=None,
        limit=None,
        is_passed=unchecked == "allow",
        is_checked=False,
        message=f"not checked: {why}",
    )


def failed(name: str, why: str, detail: Mapping[str, Any] | None = None) -> GateCheck:
    """Return a check that failed before it had a number."""
    return GateCheck(
        name=name, value=None, limit=None, is_passed=False, message=why, detail=detail or {}
    )


def worst(values: Mapping[T, float], sign: float) -> T | None:
    """Return whose number is worst; undefined ones do not count.

    Args:
        values: Numbers.
        sign: 1 where more is better, -1 where less is.
    """
    known = {who: value for who, value in values.items() if not math.isnan(value)}
    return min(known, key=lambda who: sign * known[who]) if known else None


def number(value: Any) -> float:
    """Return a number of a document, NaN for anything else."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if is_number else math.nan


def gate_table(checks: Sequence[GateCheck]) -> str:
    """Return all checks as lines for people."""
    width = max((len(check.name) for check in checks), default=0)
    words = {(True, True): "passed", (True, False): "allowed", (False, True): "FAILED"}
    lines = []
    for check in checks:
        word = words.get((check.is_passed, check.is_checked), "REFUSED")
        numbers = f"{_short(check.value):>9} {_short(check.limit):>9}"
        lines.append(f"{word:<8}{check.name:<{width}} {numbers}  {check.message}")
    header = f"{'':<8}{'check':<{width}} {'value':>9} {'limit':>9}"
    return "\n".join([header, *lines])


def _compare(
    name: str,
    value: float | None,
    limit: float,
    message: str,
    detail: Mapping[str, Any] | None,
    sign: float,
) -> GateCheck:
    found = _nan(value)
    return GateCheck(
        name=name,
        value=None if math.isnan(found) else found,
        limit=limit,
        is_passed=not sign * found < sign * limit,
        message=message,
        detail=detail or {},
    )


def _nan(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _text(value: float | None, limit: float) -> str:
    """Return a number as precise as its limit: counts are whole."""
    found = _nan(value)
    if math.isnan(found):
        return "undefined"
    return f"{found:,.0f}" if found.is_integer() and float(limit).is_integer() else f"{found:.3f}"


def _short(value: float | None) -> str:
    """Return a number of few characters."""
    found = _nan(value)
    if math.isnan(found):
        return "-"
    return f"{found:.4f}" if found == 0 or abs(found) >= 1e-3 else f"{found:.1e}"
