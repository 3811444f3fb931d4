"""What is known of every model in a location: its stage, training and test, one row per bundle.

Read from the registry and from ``manifest.json`` and ``metrics.json`` of each bundle, which are not
verified: listing reads no weights. Of a pruned bundle both were kept.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from datetime import date, timedelta
from typing import Any

from churn_udf.bundles import list_bundle_ids, read_bundle_file
from churn_udf.contracts.bundle import MANIFEST_FILE, METRICS_FILE
from churn_udf.models_location import ModelsDir, store_of
from churn_udf.registry import CHAMPION, Registry, read_registry

PRUNED_DIR = "pruned"
DEFAULT_KIND = "bert"
"""Bundles without an ensemble hold a BERT model alone."""
FITS_OF_REFIT: Mapping[str, tuple[str, ...]] = {
    "none": (),
    "test": ("refit",),
    "all": ("refit", "final"),
}
"""Setting ``fit.refit`` -> fits made after the first one; the last ships."""
TEST_METRICS = {
    "test_auroc": "auroc",
    "test_average_precision": "average_precision",
    "test_brier_score": "brier_score",
    "test_calibration_error": "expected_calibration_error",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelRecord:
    """A row of ``churn_models``; None where a bundle does not say."""

    bundle_id: str
    stage: str
    is_champion: bool
    stage_since: str | None = None
    """UTC, ISO 8601; of a candidate that was never moved, when it was made."""
    stage_reason: str | None = None
    created_at: str | None = None
    """UTC, ISO 8601."""
    is_pruned: bool = False
    """Whether its files are gone."""
    run_id: str | None = None
    snapshot_id: str | None = None
    model_kind: str | None = None
    """``bert``, ``gbm`` or ``stack``."""
    encoder: str | None = None
    training_row_count: int | None = None
    """Rows that what scores was fitted on."""
    training_base_rate: float | None = None
    """Share of them that churned, [0, 1]."""
    first_training_cutoff_date: date | None = None
    last_training_cutoff_date: date | None = None
    trained_until_date: date | None = None
    """End of the newest label horizon that any fit or calibration of it has read."""
    test_cutoff_date: date | None = None
    test_auroc: float | None = None
    test_average_precision: float | None = None
    test_brier_score: float | None = None
    test_calibration_error: float | None = None


def read_records(models_dir: ModelsDir) -> list[ModelRecord]:
    """Return all models that are or were in a location, by bundle id.

    Raises:
        BundleIntegrityError: The registry is damaged; a damaged bundle is listed without facts.
        StorageError: The location cannot be read.
    """
    registry = read_registry(models_dir)
    present = set(list_bundle_ids(models_dir))
    records = []
    for bundle_id in sorted(present | set(registry.standings)):
        if bundle_id in present:
            manifest = read_bundle_file(models_dir, bundle_id, MANIFEST_FILE)
            metrics = read_bundle_file(models_dir, bundle_id, METRICS_FILE)
        else:
            manifest, metrics = read_pruned(models_dir, bundle_id)
        is_pruned = bundle_id not in present
        records.append(_record(registry, bundle_id, manifest or {}, metrics or {}, is_pruned))
    return records


def read_pruned(models_dir: ModelsDir, bundle_id: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return manifest and metrics that were kept of a pruned bundle; empty what was not."""
    try:
        kept = json.loads(store_of(models_dir).read(f"{PRUNED_DIR}/{bundle_id}.json"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return {}, {}
    return _mapping(kept, "manifest"), _mapping(kept, "metrics")


def trained_until(training: Mapping[str, Any], settings: Mapping[str, Any]) -> date | None:
    """Return the end of the newest label horizon that the shipped model has learned from.

    The first fit, the choice of the ensemble, calibration and thresholds read training and
    validation labels; ``fit.refit`` adds those known at the test cutoff and at the score cutoff,
    and calibration of such a model no later ones than its last fit.

    Args:
        training: The manifest's training facts.
        settings: The manifest's settings.

    Returns:
        The first date after that horizon; None where the facts do not tell.
    """
    stated = _date(training.get("trained_until"))
    fits = FITS_OF_REFIT.get(str(training.get("refit")))
    parts = [
        *(_mapping(training, "splits", name) for name in ("train", "valid")),
        *(_mapping(training, "fits", name) for name in fits or ()),
    ]
    days = [settings.get(name) for name in ("gap_days", "horizon_days")]
    if stated is not None or fits is None or not all(isinstance(day, int) for day in days):
        return stated
    cutoffs = [cutoff for part in parts for cutoff in _cutoffs(part)]
    if not all(parts) or not cutoffs:
        return None
    return max(cutoffs) + timedelta(days=sum(day for day in days if isinstance(day, int)))


def _record(
    registry: Registry,
    bundle_id: str,
    manifest: Mapping[str, Any],
    metrics: Mapping[str, Any],
    is_pruned: bool,
) -> ModelRecord:
    """Return the row of one bundle."""
    standing = registry.standing_of(bundle_id)
    created_at = _text(manifest.get("created_at"))
    training = _mapping(manifest, "content", "training")
    settings = _mapping(manifest, "content", "settings")
    tested = _mapping(metrics, "test", str(metrics.get("model")))
    test_cutoffs = _cutoffs(_mapping(training, "splits", "test"))
    tests: dict[str, Any] = {
        name: _number(_mapping(tested, metric).get("value"))
        for name, metric in TEST_METRICS.items()
    }
    shipped = _shipped_rows(training)
    cutoffs = _cutoffs(shipped)
    return ModelRecord(
        bundle_id=bundle_id,
        stage=standing.stage,
        is_champion=standing.stage == CHAMPION,
        stage_since=standing.since or created_at,
        stage_reason=standing.reason or None,
        created_at=created_at,
        is_pruned=is_pruned,
        run_id=_text(training.get("run_id")),
        snapshot_id=_text(training.get("snapshot_id")),
        model_kind=_text(training.get("ensemble")) or (DEFAULT_KIND if manifest else None),
        encoder=_text(training.get("encoder")),
        training_row_count=_integer(shipped.get("rows")),
        training_base_rate=_number(shipped.get("base_rate")),
        first_training_cutoff_date=min(cutoffs, default=None),
        last_training_cutoff_date=max(cutoffs, default=None),
        trained_until_date=trained_until(training, settings),
        test_cutoff_date=max(test_cutoffs, default=None),
        **tests,
    )


def _shipped_rows(training: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what the manifest says of the rows that the shipped fit has learned from."""
    fits = FITS_OF_REFIT.get(str(training.get("refit")))
    if fits:
        return _mapping(training, "fits", fits[-1])
    return _mapping(training, "splits", "train")


def _mapping(document: Any, *path: str) -> dict[str, Any]:
    """Return a mapping inside others; empty where there is none."""
    for name in path:
        document = document.get(name) if isinstance(document, Mapping) else None
    return dict(document) if isinstance(document, Mapping) else {}


def _cutoffs(part: Mapping[str, Any]) -> list[date]:
    """Return the cutoffs of a split or a fit."""
    stated = part.get("cutoffs")
    dates = [_date(value) for value in stated] if isinstance(stated, list) else []
    return [value for value in dates if value is not None]


def _date(value: Any) -> date | None:
    """Return a date of a document."""
    try:
        return date.fromisoformat(value)
    except (TypeError, ValueError):
        return None


def _text(value: Any) -> str | None:
    """Return a text of a document."""
    return value if isinstance(value, str) and value else None


def _integer(value: Any) -> int | None:
    """Return a whole number of a document."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _number(value: Any) -> float | None:
    """Return a number of a document."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if is_number else None
