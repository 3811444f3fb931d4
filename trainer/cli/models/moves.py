"""How the commands that move models tell what they did; importing this costs no more than click."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from trainer.cli import options as shared

if TYPE_CHECKING:
    from trainer.release.gate.promoting import Promotion
    from trainer.release.promotion import Move


def emit_move(options: dict[str, Any], move: Move) -> None:
    """Print a move and what to do next."""
    shared.emit(options, dataclasses.asdict(move), _text(move))


def emit_promotion(options: dict[str, Any], promotion: Promotion) -> None:
    """Print every check of the gate, and the move if there is one."""
    from trainer.release.gate import gate_table

    verdict, move = promotion.verdict, promotion.move
    told = f"{move.bundle_id} is refused" if promotion.is_refused else _text(move)
    if verdict is not None:
        told = f"{gate_table(verdict.checks)}\n{told}"
    elif move.from_stage != move.to_stage:
        told = f"the gate was not asked: it passed before\n{told}"
    document = {
        **dataclasses.asdict(move),
        "checks": [dict(check) for check in move.checks],
        "is_refused": promotion.is_refused,
        "is_passed": verdict is None or verdict.is_passed,
    }
    shared.emit(options, document, told)


def _text(move: Move) -> str:
    """Say what a move did, or would do, and what to do next."""
    if move.from_stage == move.to_stage:
        told = f"{move.bundle_id} is {move.to_stage} already: nothing to do"
        return f"{told}\nnext: dbt build" if move.to_stage == "champion" else told
    verb = "would be" if move.dry_run else "is"
    if move.to_stage == "champion":
        before = move.previous_bundle_id or "none"
        lines = [f"champion {verb} {move.bundle_id} (before: {before})"]
    else:
        lines = [f"{move.bundle_id} {verb} {move.to_stage} (was {move.from_stage})"]
    if move.is_override:
        lines.append(f"although the gate refused it: {move.reason}")
    if move.to_stage in ("champion", "shadow") and not move.dry_run:
        lines.append("next: dbt build")
    return "\n".join(lines)
