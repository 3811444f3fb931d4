"""What differs between two models, as one JSON-ready document."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from churn_udf.models_location import ModelsDir
from trainer.release.model_facts import describe_model

SECTIONS = (
    "settings",
    "training",
    "ensemble",
    "thresholds",
    "calibration",
    "precision",
    "versions",
)
LEFT_OUT = frozenset({("ensemble", "kind"), ("training", "weights")})
"""Said by another section: ``training.ensemble`` and ``ensemble.weights``."""
ABSENT = None


def compare_models(models_dir: ModelsDir, first: str, second: str) -> dict[str, Any]:
    """Return what differs between two models, and their test metrics side by side.

    Args:
        models_dir: The models location.
        first: A model's id, in full.
        second: Another's.

    Returns:
        ``differences`` is a list of ``section``, ``name``, ``a`` and ``b``, null where a model
        has no such thing; ``metrics`` has all test metrics, with the difference b - a, and
        ``is_same_test`` tells whether both were tested on the same rows.
    """
    a, b = describe_model(models_dir, first), describe_model(models_dir, second)
    differences = [*_features(a["features"], b["features"])]
    for section in SECTIONS:
        mine, theirs = (dict(_leaves(side[section])) for side in (a, b))
        for name in sorted({*mine, *theirs}):
            pair = mine.get(name, ABSENT), theirs.get(name, ABSENT)
            if pair[0] != pair[1] and (section, name.partition(".")[0]) not in LEFT_OUT:
                differences.append({"section": section, "name": name, "a": pair[0], "b": pair[1]})
    return {
        "a": _head(a),
        "b": _head(b),
        "is_same_test": _tested_on(a) == _tested_on(b),
        "metrics": _metrics(a["test"], b["test"]),
        "differences": differences,
    }


def _head(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return what names a model."""
    names = ("bundle_id", "stage", "created_at", "is_pruned", "trained_until_date")
    return {name: facts[name] for name in names}


def _tested_on(facts: Mapping[str, Any]) -> Any:
    """Return what tells the test rows apart."""
    training = facts["training"]
    splits = training.get("splits") or {}
    settings = {name: facts["settings"].get(name) for name in ("gap_days", "horizon_days")}
    return [training.get("snapshot_id"), training.get("test_mode"), splits.get("test"), settings]


def _features(mine: list[str], theirs: list[str]) -> Iterator[dict[str, Any]]:
    """Yield features that only one has, or that they have in another order."""
    for name in sorted({*mine} ^ {*theirs}):
        pair = {"a": name in mine, "b": name in theirs}
        yield {"section": "features", "name": name, **pair}
    shared = [[name for name in one if name in {*mine} & {*theirs}] for one in (mine, theirs)]
    if shared[0] != shared[1]:
        yield {"section": "features", "name": "order", "a": shared[0], "b": shared[1]}


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield dotted names and values of a document; lists of mappings are numbered."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _leaves(inner, f"{path}.{name}" if path else str(name))
    elif isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        for index, inner in enumerate(value):
            yield from _leaves(inner, f"{path}.{index}")
    else:
        yield path, value


def _metrics(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the test metrics of both, and how much b is above a."""
    found = []
    for name in [*mine, *(name for name in theirs if name not in mine)]:
        a, b = mine.get(name) or {}, theirs.get(name) or {}
        before, after = a.get("value"), b.get("value")
        gap = None if before is None or after is None else after - before
        found.append({"name": name, "a": a or None, "b": b or None, "difference": gap})
    return found
