"""Checks of the snapshot that a candidate learned from: whole, honest, and still true."""

from __future__ import annotations

import datetime

import numpy as np

from churn_udf.bundles import Bundle
from churn_udf.contracts.settings import ModelSettings
from trainer.config import GateConfig
from trainer.data.snapshot import Snapshot
from trainer.data.splits import label_ends
from trainer.release.gate.checks import GateCheck, at_most, failed, not_checked
from trainer.release.gate.evidence import WarehouseNow, newest_matured

SNAPSHOT_HINT = (
    "give --snapshots-dir (and --runs-dir) of the place where it was trained, or copy the "
    "snapshot there"
)


def files_check(
    bundle: Bundle, snapshot: Snapshot | None, problem: str, unchecked: str
) -> GateCheck:
    """Check that the snapshot is there and every file is the one that was written.

    Args:
        bundle: The candidate.
        snapshot: The verified snapshot, None where it could not be opened.
        problem: Why it could not be opened; empty where it is not there.
        unchecked: ``gate.unchecked``.
    """
    stated = bundle.manifest.training.get("snapshot_id")
    if problem:
        return failed("snapshot_files", problem)
    if snapshot is None:
        why = f"snapshot {stated} is not here; {SNAPSHOT_HINT}"
        return not_checked("snapshot_files", why, unchecked)
    if snapshot.snapshot_id != stated:
        return failed(
            "snapshot_files",
            f"snapshot {snapshot.snapshot_id} is not {stated}, which the bundle learned from",
        )
    return at_most(
        "snapshot_files",
        0.0,
        0.0,
        f"damaged files among {len(snapshot.document['shards']):,} of snapshot {stated}:",
    )


def labels_check(snapshot: Snapshot, data_end_date: datetime.date | None) -> GateCheck:
    """Check that no label was told before its horizon had ended.

    Args:
        snapshot: The rows.
        data_end_date: The first date without data; None where no warehouse tells, then the
            newest matured cutoff has to end by the newest cutoff that is not.
    """
    column = snapshot.table.column("is_churned")
    mature = snapshot.table.column("is_label_mature").to_numpy()
    is_told = column.is_valid().to_numpy() if column.num_chunks else mature
    is_early = is_told & ~mature
    if data_end_date is not None:
        is_early |= is_told & (label_ends(snapshot) > np.datetime64(data_end_date, "D"))
    else:
        immature = snapshot.cutoff_dates[~mature]
        if len(immature):
            is_early |= is_told & (snapshot.cutoff_dates >= immature.min())
    missing = int((mature & ~is_told).sum())
    return at_most(
        "snapshot_labels",
        float(is_early.sum() + missing),
        0.0,
        f"labels told before their horizon ended, or missing after it, among "
        f"{int(is_told.sum()):,}:",
        {"early": int(is_early.sum()), "missing": missing},
    )


def settings_check(
    bundle: Bundle,
    snapshot: Snapshot | None,
    settings: ModelSettings | None,
    feature_names: tuple[str, ...] | None,
) -> GateCheck:
    """Check that bundle, snapshot and warehouse have the same windows, text and features.

    Args:
        bundle: The candidate.
        snapshot: What it learned from, where there.
        settings: The warehouse's, None without one.
        feature_names: The warehouse's, None without one.
    """
    others: dict[str, tuple[ModelSettings, tuple[str, ...]]] = {}
    if settings is not None and feature_names is not None:
        others["warehouse"] = (settings, feature_names)
    if snapshot is not None:
        others["snapshot"] = (snapshot.model_settings, snapshot.feature_names)
    mine = bundle.manifest.settings.to_dict()
    differences = []
    for who, (theirs, names) in others.items():
        differences += [
            f"{name} {value!r} against {theirs.to_dict()[name]!r} of the {who}"
            for name, value in mine.items()
            if value != theirs.to_dict()[name]
        ]
        if tuple(names) != bundle.feature_names:
            differences.append(f"other features than the {who}")
    told = f" ({'; '.join(differences)})" if differences else ""
    return at_most(
        "snapshot_settings",
        float(len(differences)),
        0.0,
        f"settings that differ from {' and '.join(others) or 'nothing'}{told}:",
        {"differences": differences},
    )


def now_checks(snapshot: Snapshot, now: WarehouseNow, gate: GateConfig) -> list[GateCheck]:
    """Check that the warehouse still tells the same labels, and has no much newer ones.

    Args:
        snapshot: What the candidate learned from.
        now: The warehouse.
        gate: The bounds.
    """
    cutoff = newest_matured(snapshot)
    if cutoff is None:
        return [failed("snapshot_label_changes", "the snapshot has no label at all")]
    return [_changes_check(snapshot, cutoff, now, gate), _age_check(cutoff, now, gate)]


def _changes_check(
    snapshot: Snapshot, cutoff: datetime.date, now: WarehouseNow, gate: GateConfig
) -> GateCheck:
    """Check the share of the newest labels that late events have changed."""
    name = "snapshot_label_changes"
    if not now.snapshot_labels:
        return not_checked(name, f"the warehouse no longer has cutoff {cutoff}", "allow")
    is_newest = snapshot.cutoff_dates == np.datetime64(cutoff, "D")
    rows = np.flatnonzero(is_newest & ~np.isnan(snapshot.labels))
    labels = snapshot.labels[rows]
    changed = sum(
        now.snapshot_labels.get(user) != bool(label)
        for user, label in zip(snapshot.user_ids(rows), labels, strict=True)
    )
    return at_most(
        name,
        changed / len(rows),
        gate.max_label_changes,
        f"{changed:,} of {len(rows):,} labels at cutoff {cutoff} are others in the warehouse now, "
        "a share of",
        {"cutoff_date": cutoff.isoformat(), "changed": changed, "rows": len(rows)},
    )


def _age_check(cutoff: datetime.date, now: WarehouseNow, gate: GateConfig) -> GateCheck:
    """Check by how much the warehouse's newest matured cutoff is newer."""
    newest = now.newest.outcomes.cutoff_date if now.newest is not None else cutoff
    days = max((newest - cutoff).days, 0)
    return at_most(
        "snapshot_age",
        float(days),
        gate.max_snapshot_age_days,
        f"newest matured cutoff {cutoff}, in the warehouse {newest}: days older",
    )
