"""Promoting through the gate: judge, decide, and log the checks with the move."""

from __future__ import annotations

import dataclasses

from churn_udf.bundles import bundle_directory, open_bundle
from churn_udf.models_location import ModelsDir
from churn_udf.registry import CHAMPION, Registry, move, read_registry
from trainer.config import TrainConfig
from trainer.progress import Progress
from trainer.release.gate.checks import GateVerdict
from trainer.release.gate.judge import Places, judge_candidate


@dataclasses.dataclass(frozen=True, kw_only=True)
class Promotion:
    """What was decided about a candidate."""

    bundle_id: str
    previous_bundle_id: str | None
    """The champion that it replaces, or would."""
    is_promoted: bool
    """Whether it is the champion now; of a dry run, whether it would be."""
    is_override: bool = False
    """Whether the gate refused and somebody decided otherwise."""
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
    champion_id = registry.champion_id
    if bundle_id == champion_id or has_proved_itself(registry, bundle_id):
        verdict = None
        open_bundle(bundle_directory(models_dir, bundle_id))
        is_promoted = True
    else:
        verdict = judge_candidate(models_dir, bundle_id, config, places, progress=progress)
        champion_id = verdict.expected_champion
        is_promoted = verdict.is_passed or is_override
    was_refused = verdict is not None and not verdict.is_passed
    if is_promoted and not dry_run and bundle_id != champion_id:
        move(
            models_dir,
            bundle_id,
            CHAMPION,
            reason=reason,
            is_override=was_refused,
            checks=verdict.to_dicts() if verdict else (),
            expected_champion=champion_id,
        )
    previous = champion_id if bundle_id != champion_id else registry.previous_champion_id
    return Promotion(
        bundle_id=bundle_id,
        previous_bundle_id=previous,
        is_promoted=is_promoted,
        is_override=is_promoted and was_refused,
        verdict=verdict,
    )


def has_proved_itself(registry: Registry, bundle_id: str) -> bool:
    """Return whether a bundle became champion before without an override."""
    return any(
        entry.bundle_id == bundle_id and entry.to_stage == CHAMPION and not entry.is_override
        for entry in registry.transitions
    )
