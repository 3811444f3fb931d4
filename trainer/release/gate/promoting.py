"""Promoting through the gate: judge, decide, and log the checks with the move."""

from __future__ import annotations

import dataclasses

from churn_udf.models_location import ModelsDir
from churn_udf.registry import ACTION_ROLLBACK, CHAMPION, Registry, read_registry
from churn_udf.registry_entries import actor
from trainer.config import TrainConfig
from trainer.progress import Progress
from trainer.release.gate.checks import GateVerdict
from trainer.release.gate.judge import Places, judge_candidate
from trainer.release.promotion import Move, promote_candidate


@dataclasses.dataclass(frozen=True, kw_only=True)
class Promotion:
    """What was decided about a candidate."""

    move: Move
    """Made or planned; of a refused candidate, what was asked for."""
    is_refused: bool
    verdict: GateVerdict | None = None
    """None where the gate was not asked."""


def promote_gated(
    models_dir: ModelsDir,
    bundle_id: str,
    config: TrainConfig,
    places: Places,
    *,
    reason: str,
    is_override: bool = False,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> Promotion:
    """Make a candidate the champion if the gate lets it, or in spite of it.

    The champion, and a bundle that the gate has let become champion before, are not judged again:
    going back to what has proved itself must always be possible.

    Args:
        models_dir: Where the bundles are.
        bundle_id: The candidate.
        config: Settings; ``gate`` has the bounds.
        places: Warehouse, runs and snapshots.
        reason: Why, for the log.
        is_override: Promote it even if refused; the log tells of it.
        dry_run: Judge, but move nothing.
        progress: Shows the steps.

    Raises:
        BundleError: The bundle cannot be used; nothing is moved.
        ChampionChangedError: Somebody promoted while the gate was at work.
    """
    registry = read_registry(models_dir)
    verdict = None
    if not has_proved_itself(registry, bundle_id):
        verdict = judge_candidate(models_dir, bundle_id, config, places, progress=progress)
    was_refused = verdict is not None and not verdict.is_passed
    checks = tuple(verdict.to_dicts()) if verdict else ()
    if was_refused and not is_override:
        asked = Move(
            bundle_id=bundle_id,
            from_stage=registry.stage_of(bundle_id),
            to_stage=CHAMPION,
            reason=reason,
            moved_at=None,
            moved_by=actor(),
            is_override=False,
            checks=checks,
            champion_id=registry.champion_id,
            previous_bundle_id=registry.previous_champion_id,
            was_moved=False,
            dry_run=dry_run,
        )
        return Promotion(move=asked, is_refused=True, verdict=verdict)
    done = promote_candidate(
        models_dir,
        bundle_id,
        reason=reason,
        is_override=was_refused,
        dry_run=dry_run,
        checks=checks,
        expected_champion=verdict.expected_champion if verdict else registry.champion_id,
    )
    return Promotion(move=done, is_refused=False, verdict=verdict)


def has_proved_itself(registry: Registry, bundle_id: str) -> bool:
    """Return whether a bundle is the champion, or became it before without an override.

    A rollback proves nothing: it may go back to a model that was forced past the gate.
    """
    return bundle_id == registry.champion_id or any(
        entry.bundle_id == bundle_id
        and entry.to_stage == CHAMPION
        and entry.action != ACTION_ROLLBACK
        and not entry.is_override
        for entry in registry.transitions
    )
