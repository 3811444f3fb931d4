"""What a scheduler runs every night: train only if a new model is due."""

from __future__ import annotations

import dataclasses

from trainer.config import TrainConfig
from trainer.data.warehouse import Warehouse
from trainer.pipeline import RunOutcome, Workspace, run_all
from trainer.retraining import RetrainingPlan, plan


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScheduledOutcome:
    """What a night brought."""

    plan: RetrainingPlan
    """What was found before training."""
    outcome: RunOutcome | None
    """What ``run`` did; None when no model was due, or only asked for."""


def run_if_due(
    warehouse: Warehouse,
    config: TrainConfig,
    workspace: Workspace,
    *,
    should_promote: bool = True,
    dry_run: bool = False,
) -> ScheduledOutcome:
    """Do what ``run`` does if a new model is due, else nothing.

    The champion scores on until another one is promoted at the very end.

    Args:
        warehouse: Where the tables are.
        config: Settings; ``retraining`` says when a model is due.
        workspace: Where everything goes.
        should_promote: Make the model the champion when it passes the gate.
        dry_run: Only say whether a model is due.

    Raises:
        ChurnError: A table that training needs is missing, or a step failed.
    """
    found = plan(warehouse, config.retraining, workspace.models_dir)
    workspace.progress.note(found.sentence)
    if dry_run or not found.is_due:
        return ScheduledOutcome(plan=found, outcome=None)
    outcome = run_all(warehouse, config, workspace, should_promote=should_promote)
    return ScheduledOutcome(plan=found, outcome=outcome)
