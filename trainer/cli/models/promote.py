"""``churn-train models promote``."""

from __future__ import annotations

from typing import Any

import click

from trainer.cli import options as shared
from trainer.cli.models.moves import emit_move

STAGES = ("champion", "shadow", "candidate")


@click.command(name="promote")
@click.argument("bundle", required=False)
@click.option(
    "--stage",
    type=click.Choice(STAGES),
    default="champion",
    show_default=True,
    help="champion scores, a shadow scores beside it, a candidate waits.",
)
@click.option(
    "--override",
    "is_override",
    is_flag=True,
    help="Promote though the gate refuses; needs --reason.  [default: off]",
)
@click.option("--reason", help="Why, for the log.  [default: promoted by hand]")
@shared.warehouse_options
@shared.config_options
@shared.snapshots_dir_option
@shared.runs_dir_option
@shared.models_dir_option
@shared.dry_run_option
@shared.output_options
def command(
    bundle: str | None, stage: str, is_override: bool, reason: str | None, **options: Any
) -> None:
    """Make a model the champion, with which the next `dbt build` scores, or a shadow.

    BUNDLE is a bundle id or run id, or the beginning of one; without it the newest one is
    promoted. Exit code 3: the gate refuses it.
    """
    if is_override and not (reason or "").strip():
        raise click.UsageError("--override needs --reason TEXT: it is kept in the log")
    from trainer.release.promotion import promote_candidate
    from trainer.release.registry import find_bundle_id

    models_dir = shared.resolve_models_dir(options)
    move = promote_candidate(
        models_dir,
        find_bundle_id(models_dir, bundle),
        to_stage=stage,
        reason=(reason or "").strip() or "promoted by hand",
        is_override=is_override,
        dry_run=options["dry_run"],
    )
    emit_move(options, move)
