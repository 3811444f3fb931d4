"""All that is known of one model, as one JSON-ready document."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from churn_udf.bundles import list_bundle_ids, read_bundle_file
from churn_udf.contracts.bundle import (
    BUNDLES_DIR,
    CALIBRATION_FILE,
    ENSEMBLE_FILE,
    MANIFEST_FILE,
    METRICS_FILE,
    PRECISION_FILE,
    THRESHOLDS_FILE,
)
from churn_udf.model.precision import FP32
from churn_udf.model_records import DEFAULT_KIND, read_pruned, trained_until
from churn_udf.models_location import ModelsDir, store_of
from churn_udf.registry import CHAMPION, Registry, Transition, read_registry


def describe_model(models_dir: ModelsDir, bundle_id: str) -> dict[str, Any]:
    """Return stage, moves, settings, training, test, files and gate of a model.

    Files are not verified. Of a pruned model only what its manifest and metrics say is known.

    Args:
        models_dir: The models location.
        bundle_id: Which model, in full.

    Raises:
        BundleIntegrityError: The registry is damaged.
        StorageError: The location cannot be read.
    """
    registry = read_registry(models_dir)
    is_pruned = bundle_id not in list_bundle_ids(models_dir)
    if is_pruned:
        manifest, metrics = read_pruned(models_dir, bundle_id)
    else:
        manifest = read_bundle_file(models_dir, bundle_id, MANIFEST_FILE) or {}
        metrics = read_bundle_file(models_dir, bundle_id, METRICS_FILE) or {}
    content = _mapping(manifest.get("content"))
    settings, training = _mapping(content.get("settings")), _mapping(content.get("training"))
    until = trained_until(training, settings)
    standing = registry.standing_of(bundle_id)
    return {
        "bundle_id": bundle_id,
        "stage": standing.stage,
        "stage_since": standing.since or manifest.get("created_at"),
        "stage_reason": standing.reason or None,
        "is_champion": standing.stage == CHAMPION,
        "is_pruned": is_pruned,
        "is_readable": bool(manifest),
        "created_at": manifest.get("created_at"),
        "history": _history(registry, bundle_id),
        "checks": _checks(registry, bundle_id),
        "settings": settings,
        "features": [_mapping(feature).get("name") for feature in content.get("features") or ()],
        "training": training,
        "trained_until_date": until.isoformat() if until else None,
        "test": _mapping(_mapping(metrics.get("test")).get(str(metrics.get("model")))),
        "best_baseline": metrics.get("best_baseline"),
        "differences": _mapping(metrics.get("differences")),
        "versions": _mapping(content.get("versions")),
        **_parts(models_dir, bundle_id, is_pruned=is_pruned),
        **_files(models_dir, bundle_id, _mapping(content.get("files")), is_pruned=is_pruned),
    }


def _parts(models_dir: ModelsDir, bundle_id: str, *, is_pruned: bool) -> dict[str, Any]:
    """Return what the small files of a bundle say; nothing of a pruned one."""
    names = {
        "ensemble": ENSEMBLE_FILE,
        "thresholds": THRESHOLDS_FILE,
        "calibration": CALIBRATION_FILE,
        "precision": PRECISION_FILE,
    }
    if is_pruned:
        return {part: {} for part in names}
    found = {
        part: read_bundle_file(models_dir, bundle_id, name) or {} for part, name in names.items()
    }
    found["ensemble"] = found["ensemble"] or {"kind": DEFAULT_KIND, "weights": {DEFAULT_KIND: 1.0}}
    stated = found["precision"] or {"mode": FP32, "fallback": FP32, "check": {}}
    found["precision"] = {name: stated.get(name) for name in ("mode", "fallback", "check")}
    return found


def _files(
    models_dir: ModelsDir, bundle_id: str, stated: Mapping[str, Any], *, is_pruned: bool
) -> dict[str, Any]:
    """Return the files with their sizes, and the sum."""
    sizes = {} if is_pruned else store_of(models_dir).sizes(f"{BUNDLES_DIR}/{bundle_id}")
    names = sorted({*sizes, *stated})
    files = [
        {"name": name, "byte_count": sizes.get(name), "sha256": stated.get(name)} for name in names
    ]
    return {"files": files, "byte_count": sum(sizes.values())}


def _history(registry: Registry, bundle_id: str) -> list[dict[str, Any]]:
    """Return the moves of a model, oldest first, those that replaced it as champion among them."""
    champion_id: str | None = None
    found = []
    for entry in registry.transitions:
        replaced = entry.to_stage == CHAMPION and champion_id not in (None, entry.bundle_id)
        if entry.bundle_id == bundle_id:
            found.append(_told(entry))
        elif replaced and champion_id == bundle_id:
            replacement = dataclasses.replace(
                entry, from_stage=CHAMPION, to_stage="retired", checks=(), is_override=False
            )
            told = {**_told(replacement), "reason": f"replaced by {entry.bundle_id}"}
            found.append({**told, "replaced_by": entry.bundle_id})
        champion_id = entry.bundle_id if entry.to_stage == CHAMPION else champion_id
    return found


def _told(entry: Transition) -> dict[str, Any]:
    """Return a move without its checks."""
    content = dataclasses.asdict(entry)
    del content["bundle_id"], content["checks"]
    return {**content, "replaced_by": None}


def _checks(registry: Registry, bundle_id: str) -> list[dict[str, Any]]:
    """Return what the gate checked when the model was last promoted; empty if it was not asked."""
    for entry in reversed(registry.transitions):
        if entry.bundle_id == bundle_id and entry.to_stage == CHAMPION and entry.checks:
            return [dict(check) for check in entry.checks]
    return []


def _mapping(value: Any) -> dict[str, Any]:
    """Return a mapping of a document; empty where it is something else."""
    return dict(value) if isinstance(value, Mapping) else {}
