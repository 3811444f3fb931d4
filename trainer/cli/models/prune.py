"""``churn-train models prune``."""

from __future__ import annotations

import dataclasses
from typing import Any

import click

from trainer.cli import options as shared


@click.command(name="prune")
@click.option(
    "--keep",
    type=click.IntRange(min=0),
    default=3,
    show_default=True,
    help="Newest of the models that nobody needs to leave alone.",
)
@click.option(
    "--older-than",
    "older_than_days",
    type=click.IntRange(min=0),
    metavar="DAYS",
    help="Only models that nobody moved or made for so many days.  [default: any age]",
)
@click.option("--reason", help="Why, for the log.  [default: pruned by hand]")
@shared.models_dir_option
@shared.dry_run_option
@shared.output_options
def command(keep: int, older_than_days: int | None, reason: str | None, **options: Any) -> None:
    """Delete the files of retired models and candidates, but for the newest.

    The champion, the champion before it and shadows are never deleted. Manifest and metrics are
    kept for good, so that `models show` and churn_models still know the model; its scores and
    outcomes stay in the warehouse. What an interrupted prune left is finished first.
    """
    from trainer.release.pruning import MEGABYTE, prune_models

    outcome = prune_models(
        shared.resolve_models_dir(options),
        keep=keep,
        older_than_days=older_than_days,
        reason=(reason or "").strip() or "pruned by hand",
        dry_run=options["dry_run"],
    )
    verb = "would free" if outcome.dry_run else "freed"
    lines = [
        f"{one.bundle_id}  {one.stage:<10}{one.byte_count / MEGABYTE:>8.1f} MB"
        for one in outcome.pruned
    ]
    count = len(outcome.pruned)
    lines.append(
        f"{verb} {outcome.byte_count / MEGABYTE:.1f} MB: {count} model{'s' * (count != 1)}; "
        f"{len(outcome.kept_ids)} kept"
    )
    shared.emit(options, dataclasses.asdict(outcome), "\n".join(lines))
