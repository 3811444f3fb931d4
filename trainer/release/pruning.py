"""Pruning: the files of models that nobody needs are deleted, what is known of them is kept.

In this order, so that a prune that dies harms nothing and the next one finishes it: the log says
that the model is pruned, from when on nobody can promote it; its manifest and metrics are kept
under ``pruned/``; its files go.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone

from churn_udf.bundles import list_bundle_ids, read_bundle_file
from churn_udf.contracts.bundle import BUNDLES_DIR, MANIFEST_FILE, METRICS_FILE
from churn_udf.errors import StageError
from churn_udf.model_records import PRUNED_DIR
from churn_udf.models_location import FolderStore, ModelsDir, cache_folder, is_url, store_of
from churn_udf.registry import Registry, is_being_pruned, note_pruned, read_registry
from trainer.release.registry import list_models

MEGABYTE = 1e6


@dataclasses.dataclass(frozen=True, kw_only=True)
class PrunedModel:
    """A model whose files went."""

    bundle_id: str
    stage: str
    """Before it was pruned; ``retired`` where an earlier prune had died."""
    byte_count: int
    """Of its files."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pruning:
    """What a prune did, or would do."""

    pruned: tuple[PrunedModel, ...]
    byte_count: int
    """Freed, leftovers of killed writers included."""
    kept_ids: tuple[str, ...]
    """Models whose files stay."""
    dry_run: bool


def prune_models(
    models_dir: ModelsDir,
    *,
    keep: int,
    older_than_days: int | None = None,
    reason: str,
    dry_run: bool = False,
    now: datetime | None = None,
) -> Pruning:
    """Delete the files of models that neither score nor serve a rollback.

    Args:
        models_dir: The models location.
        keep: Leave so many of the newest of them, >= 0.
        older_than_days: Leave those that were made or moved within so many days.
        reason: Why, for the log.
        dry_run: Delete and log nothing.
        now: UTC; None is the present.

    Raises:
        BundleIntegrityError: The registry is damaged; nothing is deleted.
        StorageError: A file cannot be deleted; the next prune goes on.
    """
    registry = read_registry(models_dir)
    present = list_bundle_ids(models_dir)
    begun = [name for name in present if is_being_pruned(models_dir, registry, name)]
    moment = now or datetime.now(timezone.utc)
    chosen = _chosen(models_dir, registry, begun, keep, older_than_days, moment)
    pruned = []
    for bundle_id in [*begun, *chosen]:
        stage = registry.stage_of(bundle_id)
        if not dry_run and bundle_id not in begun:
            try:
                note_pruned(models_dir, bundle_id, reason=reason)
            except StageError:  # somebody has begun to use it since: it stays
                continue
        byte_count = _delete(models_dir, bundle_id, dry_run=dry_run)
        pruned.append(PrunedModel(bundle_id=bundle_id, stage=stage, byte_count=byte_count))
    left = store_of(models_dir).sweep(BUNDLES_DIR, is_dry_run=dry_run)
    gone = {one.bundle_id for one in pruned}
    return Pruning(
        pruned=tuple(pruned),
        byte_count=left + sum(one.byte_count for one in pruned),
        kept_ids=tuple(name for name in present if name not in gone),
        dry_run=dry_run,
    )


def _chosen(
    models_dir: ModelsDir,
    registry: Registry,
    begun: Sequence[str],
    keep: int,
    older_than_days: int | None,
    now: datetime,
) -> list[str]:
    """Return the models to prune, newest first."""
    left_alone = {*registry.kept_ids, *begun}
    candidates = [
        (max(_moment(record.created_at), _moment(record.stage_since)), record.bundle_id)
        for record in list_models(models_dir)
        if record.bundle_id not in left_alone and not record.is_pruned
    ]
    candidates.sort(reverse=True)
    days = timedelta(days=older_than_days or 0)
    return [
        bundle_id
        for touched_at, bundle_id in candidates[keep:]
        if older_than_days is None or now - touched_at > days
    ]


def _moment(text: str | None) -> datetime:
    """Return a time of the registry; long ago where it does not tell."""
    try:
        moment = datetime.fromisoformat(text or "")
    except ValueError:
        moment = datetime.min
    return moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)


def _delete(models_dir: ModelsDir, bundle_id: str, *, dry_run: bool) -> int:
    """Keep what is to be known of a bundle, delete its files and return their bytes."""
    store = store_of(models_dir)
    folder = f"{BUNDLES_DIR}/{bundle_id}"
    byte_count = sum(store.sizes(folder).values())
    if dry_run:
        return byte_count
    known = {
        "manifest": read_bundle_file(models_dir, bundle_id, MANIFEST_FILE) or {},
        "metrics": read_bundle_file(models_dir, bundle_id, METRICS_FILE) or {},
    }
    store.create(f"{PRUNED_DIR}/{bundle_id}.json", json.dumps(known).encode())
    store.delete(folder, last=MANIFEST_FILE)
    if isinstance(models_dir, str) and is_url(models_dir):  # the copy on this machine
        FolderStore(cache_folder(models_dir)).delete(folder, last=MANIFEST_FILE)
    return byte_count
