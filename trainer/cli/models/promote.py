"""``churn-train models promote``."""

from __future__ import annotations

from typing import Any

import click

from trainer.cli import options as shared
from trainer.cli.models.moves import emit_move, emit_promotion

DEFAULT_REASON = "promoted by hand"
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
@click.option("--reason", help=f"Why, for the log.  [default: {DEFAULT_REASON}]")
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

    BUNDLE is a bundle id or run id, or the beginning of one; without it the newest that is not
    retired is promoted. A champion has to pass the gate, unless it has before; the gate looks into
    the warehouse, so give the options of `dbt build`. Exit code 3: a check of the gate refuses it.
    """
    if is_override and not (reason or "").strip():
        raise click.UsageError("--override needs --reason TEXT: it is kept in the log")
    if is_override and stage != "champion":
        raise click.UsageError(f"--override with --stage {stage}: only champions pass the gate")
    from trainer.release.promotion import promote_candidate
    from trainer.release.registry import find_bundle_id

    warehouse = shared.named_warehouse(options)
    models_dir = shared.resolve_models_dir(options, warehouse)
    bundle_id = find_bundle_id(models_dir, bundle)
    why = (reason or "").strip() or DEFAULT_REASON
    if stage != "champion":
        emit_move(
            options,
            promote_candidate(
                models_dir, bundle_id, to_stage=stage, reason=why, dry_run=options["dry_run"]
            ),
        )
        return
    from trainer.release.gate import Places
    from trainer.release.gate.promoting import promote_gated

    promotion = promote_gated(
        models_dir,
        bundle_id,
        shared.make_config(options),
        Places(
            warehouse=warehouse,
            runs_dir=options["runs_dir"],
            snapshots_dir=options["snapshots_dir"],
        ),
        reason=why,
        is_override=is_override,
        dry_run=options["dry_run"],
        progress=shared.make_progress(options),
    )
    emit_promotion(options, promotion)
    error = promotion.verdict.error() if promotion.verdict else None
    if promotion.is_refused and error is not None:
        raise error
