"""``churn-train models list``."""

from __future__ import annotations

import dataclasses
from typing import Any

import click

from trainer.cli import options as shared


@click.command(name="list")
@shared.models_dir_option
@shared.output_options
def command(**options: Any) -> None:
    """List the models, newest first, with stage, training and test; the champion is marked."""
    from churn_udf.models_location import place_of, stated
    from trainer.cli.models.tables import models_table
    from trainer.release.registry import list_models

    models_dir = shared.resolve_models_dir(options)
    records = list_models(models_dir)
    text = (
        models_table(records)
        if records
        else f"no model in {place_of(models_dir)}; run `churn-train run`, or name the place that "
        "has one with --models-dir or CHURN_MODELS_DIR"
    )
    document = {
        "models_dir": stated(models_dir),
        "models": [dataclasses.asdict(record) for record in records],
    }
    shared.emit(options, document, text)
