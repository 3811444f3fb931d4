"""The registry: which bundles there are, which one scores, and moving that pointer."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from churn_udf.bundle_store import (
    Champion,
    bundle_directory,
    list_bundle_ids,
    open_bundle,
    read_champion,
    set_champion,
)
from churn_udf.contracts.bundle import MANIFEST_FILE
from churn_udf.errors import BundleIntegrityError
from trainer.errors import RegistryError
from trainer.runs import read_json


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelRecord:
    """One line of the list of models."""

    bundle_id: str
    created_at: str
    is_champion: bool
    training: dict[str, Any]
    """The manifest's training facts; empty when the manifest cannot be read."""


def list_models(models_dir: Path) -> list[ModelRecord]:
    """Return all bundles, newest first; files are not verified."""
    current = champion_id(models_dir)
    records = []
    for bundle_id in list_bundle_ids(models_dir):
        document = read_json(bundle_directory(models_dir, bundle_id) / MANIFEST_FILE) or {}
        content = document.get("content")
        training = content.get("training") if isinstance(content, dict) else None
        records.append(
            ModelRecord(
                bundle_id=bundle_id,
                created_at=str(document.get("created_at", "")),
                is_champion=bundle_id == current,
                training=training if isinstance(training, dict) else {},
            )
        )
    return sorted(records, key=lambda record: (record.created_at, record.bundle_id), reverse=True)


def find_bundle_id(models_dir: Path, reference: str | None) -> str:
    """Return the id that a reference means.

    Args:
        models_dir: Where bundles are.
        reference: A bundle id or run id, the unique beginning of one, or None for the newest.

    Raises:
        RegistryError: Nothing, or more than one, fits.
    """
    records = list_models(models_dir)
    if not records:
        raise RegistryError(f"no model in {models_dir.absolute()}; run `churn-train run` first")
    if reference is None:
        return records[0].bundle_id
    matches = [
        record
        for record in records
        if record.bundle_id.startswith(reference)
        or str(record.training.get("run_id", "")).startswith(reference)
    ]
    if len(matches) == 1:
        return matches[0].bundle_id
    problem = "fits more than one model" if matches else "is not a model"
    raise RegistryError(
        f"{reference!r} {problem} in {models_dir.absolute()}; found: {_names(matches or records)}"
    )


def promote(models_dir: Path, reference: str | None, *, reason: str, dry_run: bool) -> Champion:
    """Make a model the champion; the next ``dbt build`` scores with it.

    Args:
        models_dir: Where bundles are.
        reference: See ``find_bundle_id``.
        reason: Why, for the log.
        dry_run: Verify the bundle, but leave the pointer alone.

    Returns:
        The pointer as it stands, or as it would.

    Raises:
        RegistryError: No such model.
        BundleError: The bundle cannot be used; the pointer is unchanged.
    """
    bundle_id = find_bundle_id(models_dir, reference)
    if not dry_run:
        return set_champion(models_dir, bundle_id, reason=reason)
    open_bundle(bundle_directory(models_dir, bundle_id))
    previous = champion_id(models_dir)
    return Champion(bundle_id=bundle_id, promoted_at="", reason=reason, previous_bundle_id=previous)


def champion_id(models_dir: Path) -> str | None:
    """Return the champion's id, or None; a damaged pointer counts as none, promoting repairs it."""
    try:
        champion = read_champion(models_dir)
    except BundleIntegrityError:
        return None
    return champion.bundle_id if champion else None


def _names(records: Sequence[ModelRecord]) -> str:
    """Return the ids of some models for a message."""
    return ", ".join(record.bundle_id for record in records)
