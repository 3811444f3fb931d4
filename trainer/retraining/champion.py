"""Reading the champion, and when models were trained, from the registry."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Any

from churn_udf.bundles import bundle_directory, list_bundle_ids, open_bundle, read_bundle_file
from churn_udf.contracts.bundle import MANIFEST_FILE, METRICS_FILE
from churn_udf.contracts.settings import ModelSettings
from churn_udf.errors import BundleError, BundleMismatchError
from churn_udf.model_records import read_pruned, read_records, trained_until
from churn_udf.models_location import ModelsDir
from churn_udf.registry import read_registry
from trainer.retraining.decay import auroc_error, entropy, error_of_interval
from trainer.retraining.inputs import ChampionFacts, Estimate, Promise

NO_CHAMPION, UNREADABLE, OTHER_SETTINGS = "no_champion", "unreadable", "other_settings"
SCORE_CUTOFF_FACT = "score_cutoff"
"""Training fact of a manifest: the score cutoff of its snapshot."""
DEFAULT_CONFIDENCE = 0.95


class UnusableChampionError(Exception):
    """Nobody can score.

    Attributes:
        reason: ``NO_CHAMPION``, ``UNREADABLE`` or ``OTHER_SETTINGS``.
        bundle_id: The champion, if there is one.
    """

    def __init__(self, reason: str, message: str, bundle_id: str | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.bundle_id = bundle_id


def read_champion_facts(
    models_dir: ModelsDir, settings: ModelSettings, feature_names: tuple[str, ...]
) -> ChampionFacts:
    """Return what the champion's bundle says, verified.

    Args:
        models_dir: The models location.
        settings: Of the warehouse.
        feature_names: Of the warehouse, in order.

    Raises:
        UnusableChampionError: There is none, or it cannot score this warehouse.
        BundleIntegrityError: The registry is damaged.
        StorageError: The location cannot be read.
    """
    bundle_id = read_registry(models_dir).champion_id
    if bundle_id is None:
        raise UnusableChampionError(NO_CHAMPION, "no champion yet: nothing scores")
    try:
        bundle = open_bundle(
            bundle_directory(models_dir, bundle_id), settings=settings, feature_names=feature_names
        )
    except BundleMismatchError as error:
        raise UnusableChampionError(OTHER_SETTINGS, str(error), bundle_id) from error
    except BundleError as error:
        raise UnusableChampionError(UNREADABLE, str(error), bundle_id) from error
    training = bundle.manifest.training
    metrics = read_bundle_file(models_dir, bundle_id, METRICS_FILE) or {}
    record = next(item for item in read_records(models_dir) if item.bundle_id == bundle_id)
    return ChampionFacts(
        bundle_id=bundle_id,
        trained_as_of=trained_as_of(training, bundle.manifest.settings.to_dict()),
        training_row_count=record.training_row_count,
        promise=read_promise(metrics),
    )


def newest_training(models_dir: ModelsDir) -> tuple[str, date] | None:
    """Return the model that was trained last, in the time of the data, and for which cutoff.

    Pruned and retired ones count; None if no model says when.

    Raises:
        BundleIntegrityError: The registry is damaged.
        StorageError: The location cannot be read.
    """
    present = set(list_bundle_ids(models_dir))
    found = []
    for bundle_id in sorted(present | set(read_registry(models_dir).standings)):
        if bundle_id in present:
            manifest = read_bundle_file(models_dir, bundle_id, MANIFEST_FILE) or {}
        else:
            manifest, _ = read_pruned(models_dir, bundle_id)
        content = _mapping(manifest.get("content"))
        day = trained_as_of(_mapping(content.get("training")), _mapping(content.get("settings")))
        if day is not None:
            found.append((day, bundle_id))
    if not found:
        return None
    day, bundle_id = max(found)
    return bundle_id, day


def trained_as_of(training: Mapping[str, Any], settings: Mapping[str, Any]) -> date | None:
    """Return the score cutoff that a model was trained for.

    Args:
        training: The manifest's training facts; of earlier releases, the end of the newest label
            that they tell of stands in.
        settings: The manifest's settings.
    """
    try:
        return date.fromisoformat(str(training[SCORE_CUTOFF_FACT]))
    except (KeyError, ValueError):
        return trained_until(training, settings)


def read_promise(metrics: Mapping[str, Any]) -> Promise:
    """Return what a model's test found.

    Args:
        metrics: Content of ``metrics.json``.
    """
    tested = _mapping(_mapping(metrics.get("test")).get(str(metrics.get("model"))))
    split = _mapping(_mapping(metrics.get("splits")).get("test"))
    rows, churned = _number(split.get("rows")), _number(split.get("churned_rows"))
    confidence = _number(metrics.get("confidence")) or DEFAULT_CONFIDENCE
    auroc = _estimate(tested.get("auroc"), confidence)
    if auroc is None and rows and churned and 0 < churned < rows:
        value = _number(_mapping(tested.get("auroc")).get("value"))
        if value is not None:
            error = auroc_error(value, int(churned), int(rows - churned))
            auroc = Estimate(value=value, error=error)
    loss = _estimate(tested.get("log_loss"), confidence)
    gain = None
    if loss is not None and rows and churned is not None:
        gain = Estimate(value=entropy(churned / rows) - loss.value, error=loss.error)
    return Promise(
        auroc=auroc,
        log_loss_gain=gain,
        calibration_error=_estimate(tested.get("expected_calibration_error"), confidence),
    )


def _estimate(interval: Any, confidence: float) -> Estimate | None:
    """Return value and standard error of an interval of ``metrics.json``."""
    found = {name: _number(_mapping(interval).get(name)) for name in ("value", "low", "high")}
    value, low, high = found["value"], found["low"], found["high"]
    if value is None or low is None or high is None:
        return None
    return Estimate(value=value, error=error_of_interval(low, high, confidence))


def _mapping(value: Any) -> Mapping[str, Any]:
    """Return a mapping; an empty one for anything else."""
    return value if isinstance(value, Mapping) else {}


def _number(value: Any) -> float | None:
    """Return a number of a document."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if is_number else None
