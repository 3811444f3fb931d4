"""Models as text for people."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from churn_udf.model_records import ModelRecord
from trainer.cli.tables import format_interval
from trainer.release.pruning import MEGABYTE

NAME_WIDTH = 34
PARTS = ("train", "valid", "test", "refit", "final")
MOST_ITEMS = 6
"""Longer lists are shown by their ends."""


def models_table(records: Sequence[ModelRecord]) -> str:
    """Return one line a model; the champion is marked.

    Args:
        records: In the order of the lines, at least one.
    """
    lines = [
        f"{'':2}{'bundle':<18}{'stage':<11}{'since':<18}{'kind':<7}{'trained until':<15}"
        f"{'rows':>9}{'test AUROC':>12}{'Brier':>8}  why"
    ]
    for record in records:
        until = record.trained_until_date
        rows = record.training_row_count
        why = "pruned: " if record.is_pruned else ""
        lines.append(
            f"{'*' if record.is_champion else '':2}{record.bundle_id:<18}{record.stage:<11}"
            f"{_moment(record.stage_since):<18}{record.model_kind or 'unreadable':<7} "
            f"{until.isoformat() if until else '-':<14}{f'{rows:,}' if rows else '-':>9}"
            f"{_number(record.test_auroc):>12}{_number(record.test_brier_score):>8}"
            f"  {why}{record.stage_reason or ''}".rstrip()
        )
    return "\n".join(lines)


def model_page(facts: Mapping[str, Any]) -> str:
    """Return all facts of a model.

    Args:
        facts: Of ``trainer.release.model_facts.describe_model``.
    """
    ensemble, training = facts["ensemble"], facts["training"]
    weights = ", ".join(
        f"{name} {value:.2f}" for name, value in (ensemble.get("weights") or {}).items()
    )
    parts = {**(training.get("splits") or {}), **(training.get("fits") or {})}
    names = [*(name for name in PARTS if name in parts), *sorted({*parts} - {*PARTS})]
    ordered = [(name, parts[name]) for name in names]
    plain = {name: value for name, value in training.items() if not isinstance(value, Mapping)}
    since = f"since {_moment(facts['stage_since'])} UTC" if facts["stage_since"] else ""
    blocks = [
        [
            f"model {facts['bundle_id']}: {facts['stage']} {since}".rstrip(),
            *([f"  {facts['stage_reason']}"] if facts["stage_reason"] else []),
            *(["  pruned: its files are gone"] if facts["is_pruned"] else []),
            *(["  its manifest cannot be read"] if not facts["is_readable"] else []),
        ],
        ["moves", *map(_move_line, facts["history"])],
        ["gate, when it was last promoted", *map(_check_line, facts["checks"])],
        ["test", *(_line(name, _interval(one)) for name, one in facts["test"].items())],
        ["what scores", _line(str(ensemble.get("kind", "-")), weights)] if ensemble else [],
        ["training", *(_line(name, _shown(value)) for name, value in sorted(plain.items()))],
        [f"{'rows of':<12}{'rows':>10}{'churned':>9}  cutoffs", *map(_part_line, ordered)],
        ["settings", *(_line(name, _shown(one)) for name, one in facts["settings"].items())],
        ["features", _line(str(len(facts["features"])), _shown(facts["features"]))],
        ["thresholds", *_threshold_lines(facts["thresholds"])],
        ["calibration", *(_line(name, _shown(one)) for name, one in facts["calibration"].items())],
        ["precision", _line(str(facts["precision"].get("mode")), _precision(facts["precision"]))]
        if facts["precision"]
        else [],
        ["versions", *(_line(name, str(one)) for name, one in facts["versions"].items())],
        [
            f"files, {facts['byte_count'] / MEGABYTE:.1f} MB; bytes of each:",
            *(_line(one["name"], _size(one["byte_count"])) for one in facts["files"]),
        ],
    ]
    head, *others = blocks
    return "\n\n".join("\n".join(block) for block in [head, *(one for one in others if one[1:])])


def difference_page(document: Mapping[str, Any]) -> str:
    """Return what differs between two models.

    Args:
        document: Of ``trainer.release.model_differences.compare_models``.
    """
    a, b = document["a"], document["b"]
    lines = [
        f"a: {a['bundle_id']} ({a['stage']}), trained until {a['trained_until_date'] or '-'}",
        f"b: {b['bundle_id']} ({b['stage']}), trained until {b['trained_until_date'] or '-'}",
    ]
    if document["metrics"]:
        lines += ["", f"{'test metric':<{NAME_WIDTH}}{'a':>22}{'b':>22}{'b - a':>9}"]
        for one in document["metrics"]:
            pair = [_interval(one[side]) for side in ("a", "b")]
            gap = "-" if one["difference"] is None else f"{one['difference']:+.3f}"
            lines.append(f"{one['name']:<{NAME_WIDTH}}{pair[0]:>22}{pair[1]:>22}{gap:>9}")
        if not document["is_same_test"]:
            lines.append(
                "tested on different rows, so these do not tell which is better; the gate of "
                "`churn-train models promote --dry-run` compares both on the same rows"
            )
    section = ""
    for one in document["differences"]:
        if one["section"] != section:
            section = one["section"]
            lines += ["", section]
        lines.append(f"  {one['name']:<{NAME_WIDTH}}{_shown(one['a'])} -> {_shown(one['b'])}")
    if not document["differences"]:
        lines += ["", "nothing else differs"]
    return "\n".join(lines)


def _line(name: str, text: str) -> str:
    """Return a name and its value."""
    return f"  {name:<{NAME_WIDTH}}{text}".rstrip()


def _move_line(move: Mapping[str, Any]) -> str:
    """Return a move: when, what, who, why."""
    what = f"{move['from_stage']} -> {move['to_stage']}"
    kind = {"rollback": " (rollback)", "prune": " (files deleted)"}.get(move["action"], "")
    override = " (override of the gate)" if move["is_override"] else ""
    return (
        f"  {move['sequence']:>4}  {_moment(move['moved_at'])}  {what}{kind}{override}, "
        f"{move['moved_by']}: {move['reason']}"
    )


def _check_line(check: Mapping[str, Any]) -> str:
    """Return a check of the gate, whatever it states."""
    passed = check.get("passed", check.get("is_passed"))
    verdict = {True: "passed", False: "FAILED"}.get(passed, "") if passed is not None else ""
    rest = {name: value for name, value in check.items() if name not in ("name", "message")}
    told = check.get("message") or ", ".join(f"{name} {_shown(one)}" for name, one in rest.items())
    return _line(str(check.get("name", "check")), f"{verdict:<8}{told}".strip())


def _part_line(part: tuple[str, Any]) -> str:
    """Return rows, churn rate and cutoffs of a split or fit."""
    name, facts = part
    dates = facts.get("cutoffs") or ["-"]
    span = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]} ({len(dates)})"
    rate = "-" if facts.get("base_rate") is None else f"{facts['base_rate']:.1%}"
    return f"  {name:<10}{facts.get('rows', 0):>10,}{rate:>9}  {span}"


def _threshold_lines(thresholds: Mapping[str, Any]) -> Iterator[str]:
    """Return from which probability on users are flagged, why, and the tiers."""
    for name, value in thresholds.items():
        if name == "strategy" and isinstance(value, Mapping):
            yield _line(name, f"{value.get('strategy', '-')}: {value.get('reason', '-')}")
        elif name == "tiers":
            tiers = (f"{one['name']} from {one['min_probability']:.3f}" for one in value)
            yield _line(name, ", ".join(tiers))
        else:
            yield _line(name, _shown(value))


def _precision(facts: Mapping[str, Any]) -> str:
    """Return where a fast mode falls back to."""
    return "" if facts.get("mode") == facts.get("fallback") else f"else {facts.get('fallback')}"


def _shown(value: Any) -> str:
    """Return a value on one line; a long list by its ends."""
    if isinstance(value, list) and len(value) > MOST_ITEMS:
        return f"{_shown(value[0])}, {_shown(value[1])}, ... {_shown(value[-1])} ({len(value)})"
    if isinstance(value, list) and not any(isinstance(item, (list, dict)) for item in value):
        return ", ".join(map(_shown, value)) or "none"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Mapping) and len(value) > 0:
        return ", ".join(f"{name} {_shown(inner)}" for name, inner in value.items())
    if isinstance(value, list):
        return "; ".join(map(_shown, value))
    return value if isinstance(value, str) else "-" if value in (None, {}) else json.dumps(value)


def _moment(text: str | None) -> str:
    """Return date and minute."""
    return str(text or "-")[:16].replace("T", " ")


def _interval(metric: Any) -> str:
    """Return a metric with its interval, as far as it is known."""
    stated = metric if isinstance(metric, Mapping) else {}
    return format_interval({**dict.fromkeys(("value", "low", "high")), **stated})


def _number(value: float | None) -> str:
    """Return three digits, or ``-``."""
    return "-" if value is None else f"{value:.3f}"


def _size(byte_count: int | None) -> str:
    """Return a file's bytes; one that the manifest states and that is not there is missing."""
    return f"{'missing' if byte_count is None else f'{byte_count:,}':>14}"
