"""``churn-train models rollback``."""

from __future__ import annotations

from typing import Any

import click

from trainer.cli import options as shared
from trainer.cli.models.moves import emit_move


@click.command(name="rollback")
@click.option("--reason", help="Why, for the log.  [default: rolled back by hand]")
@shared.models_dir_option
@shared.dry_run_option
@shared.output_options
def command(reason: str | None, **options: Any) -> None:
    """Make the champion before this one the champion again.

    Its scores are still there: the next `dbt build` scores only new inputs. Going back twice goes
    back two champions; what was rolled back is retired and can be promoted again.
    """
    from trainer.release.promotion import roll_back_champion

    move = roll_back_champion(
        shared.resolve_models_dir(options),
        reason=(reason or "").strip() or "rolled back by hand",
        dry_run=options["dry_run"],
    )
    emit_move(options, move)
