"""``churn-train models retire``."""

from __future__ import annotations

from typing import Any

import click

from trainer.cli import options as shared
from trainer.cli.models.moves import emit_move


@click.command(name="retire")
@click.argument("bundle")
@click.option(
    "--reason", required=True, help="Why, for the log.  [default: none, it must be given]"
)
@shared.models_dir_option
@shared.dry_run_option
@shared.output_options
def command(bundle: str, reason: str, **options: Any) -> None:
    """Take BUNDLE, a shadow or a candidate, out of use; its files stay until `models prune`.

    The champion cannot be retired: promote another one, or roll back.
    """
    if not reason.strip():
        raise click.UsageError("--reason is empty; allowed: a text for the log")
    from trainer.release.promotion import retire_model
    from trainer.release.registry import find_bundle_id

    models_dir = shared.resolve_models_dir(options)
    bundle_id = find_bundle_id(models_dir, bundle)
    move = retire_model(models_dir, bundle_id, reason=reason.strip(), dry_run=options["dry_run"])
    emit_move(options, move)
