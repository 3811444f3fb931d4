"""``churn-train models show``."""

from __future__ import annotations

from typing import Any

import click

from trainer.cli import options as shared


@click.command(name="show")
@click.argument("bundle", required=False)
@shared.models_dir_option
@shared.output_options
def command(bundle: str | None, **options: Any) -> None:
    """Tell all that is known of BUNDLE: stage, moves, settings, training, test, files, gate.

    BUNDLE is a bundle id or run id, or the beginning of one; without it the champion is shown, or
    the newest where there is none.
    """
    from trainer.cli.models.tables import model_page
    from trainer.release.model_facts import describe_model
    from trainer.release.registry import champion_id, find_bundle_id

    models_dir = shared.resolve_models_dir(options)
    wanted = bundle if bundle is not None else champion_id(models_dir)
    document = describe_model(models_dir, find_bundle_id(models_dir, wanted))
    shared.emit(options, document, model_page(document))
