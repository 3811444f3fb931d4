"""The models of a location, and which of them a reference means."""

from __future__ import annotations

from collections.abc import Sequence

from churn_udf.model_records import ModelRecord, read_records
from churn_udf.models_location import ModelsDir, place_of
from churn_udf.registry import RETIRED, read_registry
from trainer.errors import RegistryError

NAMED_MODELS = 8
"""Most models that a message names."""


def list_models(models_dir: ModelsDir) -> list[ModelRecord]:
    """Return all models that are or were in a location, newest first; files are not verified."""
    return sorted(
        read_records(models_dir),
        key=lambda record: (record.created_at or "", record.bundle_id),
        reverse=True,
    )


def find_bundle_id(models_dir: ModelsDir, reference: str | None) -> str:
    """Return the id that a reference means.

    Args:
        models_dir: The models location.
        reference: A bundle id or run id, the unique beginning of one, or None for the newest that
            is not retired.

    Raises:
        RegistryError: Nothing, or more than one, fits.
    """
    records = list_models(models_dir)
    if not records:
        raise RegistryError(
            f"no model in {place_of(models_dir)}; run `churn-train run` first, or name the place "
            "that has one with --models-dir or CHURN_MODELS_DIR"
        )
    if reference is None:
        in_use = [record for record in records if record.stage != RETIRED]
        return (in_use or records)[0].bundle_id
    wanted = reference.strip()
    matches = [
        record
        for record in records
        if wanted
        and (record.bundle_id.startswith(wanted) or (record.run_id or "").startswith(wanted))
    ]
    exact = [record for record in matches if record.bundle_id == wanted]
    if len(exact or matches) == 1:
        return (exact or matches)[0].bundle_id
    problem = "fits more than one model" if matches else "is not a model"
    raise RegistryError(
        f"{reference!r} {problem} in {place_of(models_dir)}; found: {_names(matches or records)}. "
        "`churn-train models list` tells more of each"
    )


def champion_id(models_dir: ModelsDir) -> str | None:
    """Return the bundle that scores; None before the first promotion."""
    return read_registry(models_dir).champion_id


def _names(records: Sequence[ModelRecord]) -> str:
    """Return the ids and stages of some models for a message."""
    named = [f"{record.bundle_id} ({record.stage})" for record in records[:NAMED_MODELS]]
    more = len(records) - len(named)
    return ", ".join(named) + (f" and {more} more" if more else "")
