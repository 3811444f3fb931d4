"""How the commands that move models tell what they did; importing this costs no more than click."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from trainer.cli import options as shared

if TYPE_CHECKING:
    from trainer.release.promotion import Move


def emit_move(options: dict[str, Any], move: Move) -> None:
    """Print a move and what to do next."""
    before = move.previous_bundle_id or "none"
    if move.to_stage == "champion":
        verb = "would be" if move.dry_run and move.from_stage != "champion" else "is"
        lines = [f"champion {verb} {move.bundle_id} (before: {before})"]
    elif move.from_stage == move.to_stage:
        lines = [f"{move.bundle_id} is {move.to_stage} already: nothing to do"]
    else:
        verb = "would be" if move.dry_run else "is"
        lines = [f"{move.bundle_id} {verb} {move.to_stage} (was {move.from_stage})"]
    if move.is_override:
        lines.append(f"although the gate refused it: {move.reason}")
    if move.to_stage in ("champion", "shadow") and not move.dry_run:
        lines.append("next: dbt build")
    shared.emit(options, dataclasses.asdict(move), "\n".join(lines))
