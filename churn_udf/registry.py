"""The registry: which model is in which stage, as an append-only log of numbered entries.

    <models_dir>/registry/00000001.json   one move of one bundle, made once and never changed
    <models_dir>/registry/00000002.json

The state is the fold of the log. An entry is created only if its number is free: of two writers
one gets the number, the other reads again and decides anew, so that nothing is lost and one
champion stands at any time. ``champion.json`` and ``promotions.jsonl`` of earlier releases are read
as the beginning of the log (``churn_udf.registry_entries``).
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from churn_udf.bundles import bundle_directory, list_bundle_ids, open_bundle, read_bundle_file
from churn_udf.contracts.bundle import MANIFEST_FILE
from churn_udf.errors import BundleNotFoundError, ChampionChangedError, StageError
from churn_udf.models_location import ModelsDir, place_of
from churn_udf.registry_entries import (
    ACTION_MOVE,
    ACTION_PRUNE,
    ACTION_ROLLBACK,
    CANDIDATE,
    CHAMPION,
    RETIRED,
    SHADOW,
    STAGES,
    Transition,
    actor,
    create_entry,
    read_transitions,
)

__all__ = [
    "ACTION_MOVE",
    "ACTION_PRUNE",
    "ACTION_ROLLBACK",
    "ANY_CHAMPION",
    "CANDIDATE",
    "CHAMPION",
    "RETIRED",
    "SHADOW",
    "STAGES",
    "Registry",
    "Standing",
    "Transition",
    "is_being_pruned",
    "move",
    "note_pruned",
    "read_registry",
    "roll_back",
]

ANY_CHAMPION = "any champion"
"""Move whoever the champion is."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Standing:
    """In which stage a bundle is, and how it came there."""

    stage: str = CANDIDATE
    since: str | None = None
    """UTC, ISO 8601; None for a candidate that was never moved."""
    reason: str = ""
    sequence: int = 0
    """Of the entry that brought it there; 0 for none."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Registry:
    """The log of moves and what follows from it."""

    transitions: tuple[Transition, ...] = ()
    """Oldest first."""
    standings: Mapping[str, Standing] = dataclasses.field(default_factory=dict)
    """Of every bundle that was ever moved, or replaced as champion."""
    champions: tuple[str, ...] = ()
    """The champion last, before it what a rollback goes back to, step by step."""
    pruned_at: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Bundles whose files were deleted, and when, UTC, ISO 8601."""

    @property
    def champion_id(self) -> str | None:
        """The bundle that scores; None before the first promotion."""
        return self.champions[-1] if self.champions else None

    @property
    def previous_champion_id(self) -> str | None:
        """The bundle that a rollback makes the champion; None if there is none."""
        return self.champions[-2] if len(self.champions) > 1 else None

    @property
    def shadow_ids(self) -> tuple[str, ...]:
        """Bundles that score beside the champion, sorted."""
        found = (name for name, standing in self.standings.items() if standing.stage == SHADOW)
        return tuple(sorted(found))

    @property
    def kept_ids(self) -> frozenset[str]:
        """Bundles that are in use or that a rollback needs: never to be deleted."""
        ends = (self.champion_id, self.previous_champion_id)
        return frozenset({*(name for name in ends if name), *self.shadow_ids})

    def stage_of(self, bundle_id: str) -> str:
        """Return a bundle's stage; one that was never moved is a candidate."""
        return self.standing_of(bundle_id).stage

    def standing_of(self, bundle_id: str) -> Standing:
        """Return a bundle's stage, and since when and why it is in it."""
        return self.standings.get(bundle_id, Standing())


def read_registry(models_dir: ModelsDir) -> Registry:
    """Return the registry of a models location; empty where there is nothing.

    Raises:
        BundleIntegrityError: An entry is damaged or missing; names it and what to do.
        StorageError: The location cannot be read.
    """
    return fold(read_transitions(models_dir))


def fold(transitions: Sequence[Transition]) -> Registry:
    """Return the state after some moves.

    Args:
        transitions: All moves, oldest first.
    """
    standings: dict[str, Standing] = {}
    champions: list[str] = []
    pruned_at: dict[str, str] = {}
    for entry in transitions:
        if entry.to_stage == CHAMPION:
            if champions:
                replaced = f"replaced by {entry.bundle_id}"
                standings[champions[-1]] = _standing(entry, RETIRED, replaced)
            if entry.action == ACTION_ROLLBACK:
                champions = champions[:-1]
            champions = _without_repeats([*champions, entry.bundle_id])
        pruned_at.pop(entry.bundle_id, None)
        if entry.action == ACTION_PRUNE:
            pruned_at[entry.bundle_id] = entry.moved_at
            champions = _without_repeats([name for name in champions if name != entry.bundle_id])
        standings[entry.bundle_id] = _standing(entry, entry.to_stage, entry.reason)
    return Registry(
        transitions=tuple(transitions),
        standings=standings,
        champions=tuple(champions),
        pruned_at=pruned_at,
    )


def move(
    models_dir: ModelsDir,
    bundle_id: str,
    to_stage: str,
    *,
    reason: str,
    moved_by: str | None = None,
    is_override: bool = False,
    checks: Sequence[Mapping[str, Any]] = (),
    expected_champion: str | None = ANY_CHAMPION,
    is_dry_run: bool = False,
) -> Transition:
    """Move a bundle to another stage and log it; the champion it replaces is retired.

    A bundle that is to score, as champion or shadow, is verified first. Moving a bundle to the
    stage it is in changes nothing.

    Args:
        models_dir: The models location.
        bundle_id: Which bundle.
        to_stage: One of ``STAGES``.
        reason: Why, for the log.
        moved_by: Who; None is the variable ``CHURN_ACTOR``, else the operating system's user.
        is_override: Whether the gate refused and somebody decided otherwise.
        checks: What the gate checked, JSON-ready.
        expected_champion: Whom the decision was made against, None for nobody: somebody else
            there is an error.
        is_dry_run: Check everything, log nothing.

    Returns:
        The entry, or the one that brought the bundle to this stage earlier; of a dry run the one
        that would be logged.

    Raises:
        BundleNotFoundError, BundleIntegrityError: The bundle cannot be used; nothing is moved.
        ChampionChangedError: The champion is not the expected one.
        StageError: No such stage, or the champion would be left without a successor.
    """
    if to_stage not in STAGES:
        raise StageError(f"stage {to_stage!r}; allowed: {list(STAGES)}")
    _require_bundle(models_dir, bundle_id, is_used=to_stage in (CHAMPION, SHADOW))

    def decide(registry: Registry) -> Transition:
        """Return the entry to write, or the one that stands."""
        _require_champion(registry, expected_champion, f"{bundle_id} was to become {to_stage}")
        _require_not_pruned(models_dir, registry, bundle_id)
        standing = registry.standing_of(bundle_id)
        if standing.stage == to_stage:
            if not standing.sequence:
                raise StageError(f"bundle {bundle_id} is a {to_stage} already")
            return registry.transitions[standing.sequence - 1]
        if bundle_id == registry.champion_id:
            raise StageError(
                f"bundle {bundle_id} is the champion and cannot become {to_stage}: somebody has to "
                "score. Promote another one with `churn-train models promote`, or go back with "
                "`churn-train models rollback`"
            )
        return _entry(
            registry,
            bundle_id,
            to_stage,
            reason=reason,
            moved_by=moved_by,
            is_override=is_override,
            checks=tuple(dict(check) for check in checks),
        )

    return _append(models_dir, decide, is_dry_run=is_dry_run)


def roll_back(
    models_dir: ModelsDir,
    *,
    reason: str,
    moved_by: str | None = None,
    expected_champion: str | None = ANY_CHAMPION,
    is_dry_run: bool = False,
) -> Transition:
    """Make the champion before this one the champion again.

    Rolling back twice goes back two champions; what was rolled back is not returned to.

    Args:
        models_dir: The models location.
        reason: Why, for the log.
        moved_by: See ``move``.
        expected_champion: Whom to go back from: of two that roll back at once one is refused.
        is_dry_run: Check everything, log nothing.

    Raises:
        ChampionChangedError: The champion is not the expected one.
        StageError: There is no champion before this one.
        BundleError: The earlier bundle cannot be used; nothing is moved.
    """

    def decide(registry: Registry) -> Transition:
        """Return the entry to write."""
        _require_champion(registry, expected_champion, "the champion was to be rolled back")
        earlier = registry.previous_champion_id
        if earlier is None:
            raise StageError(
                f"no champion before {registry.champion_id or 'the first one'} in "
                f"{place_of(models_dir)}: nothing to roll back to. Choose a model with "
                "`churn-train models promote`; `churn-train models list` lists them"
            )
        _require_bundle(models_dir, earlier, is_used=True)
        return _entry(
            registry,
            earlier,
            CHAMPION,
            reason=reason,
            moved_by=moved_by,
            action=ACTION_ROLLBACK,
        )

    return _append(models_dir, decide, is_dry_run=is_dry_run)


def note_pruned(
    models_dir: ModelsDir, bundle_id: str, *, reason: str, moved_by: str | None = None
) -> Transition:
    """Log that a bundle's files are deleted; who logs it deletes them next.

    From here on nobody can promote it, unless it is packaged anew. One that is logged as pruned
    already is not logged again.

    Args:
        models_dir: The models location.
        bundle_id: Which bundle.
        reason: Why, for the log.
        moved_by: See ``move``.

    Raises:
        StageError: It is the champion, a shadow, or what a rollback goes back to.
    """

    def decide(registry: Registry) -> Transition:
        """Return the entry to write."""
        if bundle_id in registry.kept_ids:
            raise StageError(
                f"bundle {bundle_id} is {registry.stage_of(bundle_id)} and scores, or a rollback "
                "would need it: it is kept. Move it with `churn-train models retire` first"
            )
        if is_being_pruned(models_dir, registry, bundle_id):
            return registry.transitions[registry.standing_of(bundle_id).sequence - 1]
        return _entry(
            registry, bundle_id, RETIRED, reason=reason, moved_by=moved_by, action=ACTION_PRUNE
        )

    return _append(models_dir, decide)


def is_being_pruned(models_dir: ModelsDir, registry: Registry, bundle_id: str) -> bool:
    """Return whether a bundle was logged as pruned and has not been packaged anew since."""
    pruned_at = registry.pruned_at.get(bundle_id)
    if pruned_at is None:
        return False
    try:
        manifest = read_bundle_file(models_dir, bundle_id, MANIFEST_FILE) or {}
        created_at = datetime.fromisoformat(str(manifest.get("created_at")))
        return created_at <= datetime.fromisoformat(pruned_at)
    except (TypeError, ValueError):  # not a time, or one without its zone
        return True


def _append(
    models_dir: ModelsDir, decide: Callable[[Registry], Transition], *, is_dry_run: bool = False
) -> Transition:
    """Log what is decided on the newest state; decide again when somebody else was first."""
    while True:
        registry = read_registry(models_dir)
        entry = decide(registry)
        is_old = entry.sequence <= len(registry.transitions)
        if is_old or is_dry_run or create_entry(models_dir, entry):
            return entry


def _entry(
    registry: Registry,
    bundle_id: str,
    to_stage: str,
    *,
    reason: str,
    moved_by: str | None,
    is_override: bool = False,
    checks: tuple[Mapping[str, Any], ...] = (),
    action: str = ACTION_MOVE,
) -> Transition:
    """Return the next entry of the log."""
    return Transition(
        sequence=len(registry.transitions) + 1,
        moved_at=datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
        moved_by=moved_by or actor(),
        bundle_id=bundle_id,
        from_stage=registry.stage_of(bundle_id),
        to_stage=to_stage,
        reason=reason,
        is_override=is_override,
        checks=checks,
        action=action,
    )


def _standing(entry: Transition, stage: str, reason: str) -> Standing:
    """Return where an entry leaves a bundle."""
    return Standing(stage=stage, since=entry.moved_at, reason=reason, sequence=entry.sequence)


def _without_repeats(names: Sequence[str]) -> list[str]:
    """Return names without those that follow themselves."""
    return [name for name, _ in itertools.groupby(names)]


def _require_bundle(models_dir: ModelsDir, bundle_id: str, *, is_used: bool) -> None:
    """Refuse a bundle that is not there, or that is to be used and is damaged."""
    directory = bundle_directory(models_dir, bundle_id) if is_used else None
    if directory is not None:
        open_bundle(directory)
    known = list_bundle_ids(models_dir)
    if bundle_id not in known:
        raise BundleNotFoundError(
            f"no bundle {bundle_id!r} in {place_of(models_dir)}; there are {list(known)}"
        )


def _require_champion(registry: Registry, expected: str | None, what: str) -> None:
    """Refuse a decision that was made against another champion."""
    if expected not in (ANY_CHAMPION, registry.champion_id):
        raise ChampionChangedError(
            f"{what} while {expected or 'nobody'} was champion; now it is "
            f"{registry.champion_id or 'nobody'}: somebody moved a model in between. Look at "
            "`churn-train models list`, then decide again"
        )


def _require_not_pruned(models_dir: ModelsDir, registry: Registry, bundle_id: str) -> None:
    """Refuse a bundle whose files are being deleted; one packaged anew since is welcome."""
    if is_being_pruned(models_dir, registry, bundle_id):
        raise BundleNotFoundError(
            f"bundle {bundle_id} was pruned at {registry.pruned_at[bundle_id]}; let `churn-train "
            "models prune` finish, then package it anew with `churn-train package`"
        )
