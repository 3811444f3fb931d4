"""Moving models between stages: what the commands say, around the registry that does it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from churn_udf.models_location import ModelsDir
from churn_udf.registry import (
    ANY_CHAMPION,
    CHAMPION,
    RETIRED,
    Registry,
    Transition,
    move,
    read_registry,
    roll_back,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Move:
    """A move of a model, made or planned."""

    bundle_id: str
    from_stage: str
    to_stage: str
    reason: str
    moved_at: str | None
    """UTC, ISO 8601; None of a planned one."""
    moved_by: str
    is_override: bool
    checks: tuple[Mapping[str, Any], ...]
    """What the gate checked."""
    champion_id: str | None
    """Who scores after it."""
    previous_bundle_id: str | None
    """The champion before this one."""
    was_moved: bool
    """False for a planned one, and for a model that was in its stage already."""
    dry_run: bool


def promote_candidate(
    models_dir: ModelsDir,
    bundle_id: str,
    *,
    to_stage: str = CHAMPION,
    reason: str,
    is_override: bool = False,
    dry_run: bool = False,
    checks: Sequence[Mapping[str, Any]] = (),
    expected_champion: str | None = ANY_CHAMPION,
) -> Move:
    """Move a model to a stage in which it is used; the gate was asked before.

    Args:
        models_dir: The models location.
        bundle_id: Which model, in full.
        to_stage: ``champion``, ``shadow`` or ``candidate``.
        reason: Why, for the log.
        is_override: Whether the gate refused and somebody decided otherwise.
        dry_run: Verify the bundle and the move, but log nothing.
        checks: What the gate checked, JSON-ready, for the log.
        expected_champion: Whom the gate compared with, None for nobody.

    Raises:
        BundleError: The bundle cannot be used; nothing is moved.
        ChampionChangedError: The champion is not the expected one.
        StageError: The champion would be left without a successor.
    """
    before = read_registry(models_dir)
    entry = move(
        models_dir,
        bundle_id,
        to_stage,
        reason=reason,
        is_override=is_override,
        checks=checks,
        expected_champion=expected_champion,
        is_dry_run=dry_run,
    )
    return _told(entry, before, dry_run=dry_run)


def roll_back_champion(models_dir: ModelsDir, *, reason: str, dry_run: bool = False) -> Move:
    """Make the champion before this one the champion again.

    Raises:
        BundleError: The earlier bundle cannot be used; nothing is moved.
        ChampionChangedError: Somebody else moved the champion at the same time.
        StageError: There is no champion before this one.
    """
    before = read_registry(models_dir)
    entry = roll_back(
        models_dir, reason=reason, expected_champion=before.champion_id, is_dry_run=dry_run
    )
    return _told(entry, before, dry_run=dry_run)


def retire_model(
    models_dir: ModelsDir, bundle_id: str, *, reason: str, dry_run: bool = False
) -> Move:
    """Take a shadow or candidate out of use; its files stay until they are pruned.

    Raises:
        BundleNotFoundError: There is no such bundle.
        StageError: It is the champion.
    """
    before = read_registry(models_dir)
    entry = move(models_dir, bundle_id, RETIRED, reason=reason, is_dry_run=dry_run)
    return _told(entry, before, dry_run=dry_run)


def _told(entry: Transition, before: Registry, *, dry_run: bool) -> Move:
    """Return what an entry of the log did to the state before it."""
    is_new = entry.sequence > len(before.transitions)
    champion_id, previous = before.champion_id, before.previous_champion_id
    if is_new and entry.to_stage == CHAMPION:
        champion_id, previous = entry.bundle_id, champion_id
    return Move(
        bundle_id=entry.bundle_id,
        from_stage=entry.from_stage if is_new else entry.to_stage,
        to_stage=entry.to_stage,
        reason=entry.reason,
        moved_at=None if dry_run and is_new else entry.moved_at,
        moved_by=entry.moved_by,
        is_override=entry.is_override,
        checks=entry.checks,
        champion_id=champion_id,
        previous_bundle_id=previous,
        was_moved=is_new and not dry_run,
        dry_run=dry_run,
    )
