"""``churn-train promote``."""

from __future__ import annotations

import dataclasses
from typing import Any

import click

from trainer.cli import options as shared


@click.command(name="promote")
@click.argument("bundle", required=False)
@click.option(
    "--reason",
    default="promoted by hand",
    show_default=True,
    help="Why, for the log of promotions.",
)
@shared.models_dir_option
@shared.dry_run_option
@shared.output_options
def command(bundle: str | None, reason: str, **options: Any) -> None:
    """Choose the bundle that the next `dbt build` scores with.

    BUNDLE is a bundle id or run id, or the beginning of one; without it the newest one is
    promoted. Promoting an earlier bundle is a rollback.
    """
    from trainer.release.registry import promote

    models_dir = shared.resolve_models_dir(options)
    champion = promote(models_dir, bundle, reason=reason, dry_run=options["dry_run"])
    document = {**dataclasses.asdict(champion), "dry_run": options["dry_run"]}
    before = champion.previous_bundle_id or "none"
    verb = "would be" if options["dry_run"] else "is"
    text = f"champion {verb} {champion.bundle_id} (before: {before})\nnext: dbt build"
    shared.emit(options, document, text)
