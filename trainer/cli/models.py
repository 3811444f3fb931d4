"""``churn-train models``."""

from __future__ import annotations

import dataclasses
from typing import Any

import click

from trainer.cli import options as shared


@click.command(name="models")
@shared.models_dir_option
@shared.output_options
def command(**options: Any) -> None:
    """List the bundles, newest first; the champion is marked."""
    from trainer.release.registry import list_models

    models_dir = shared.resolve_models_dir(options)
    records = list_models(models_dir)
    lines = [f"{'':2}{'bundle':<18}{'created':<27}{'encoder':<20}{'test AUROC':>10}  snapshot"]
    for record in records:
        facts = record.training
        auroc = facts.get("test_auroc")
        lines.append(
            f"{'*' if record.is_champion else '':2}{record.bundle_id:<18}{record.created_at:<27}"
            f"{facts.get('encoder', 'unreadable')!s:<20}"
            f"{f'{auroc:.3f}' if isinstance(auroc, float) else '-':>10}"
            f"  {facts.get('snapshot_id', '-')}"
        )
    if not records:
        lines = [f"no model in {models_dir.absolute()}; run `churn-train run`"]
    document = {
        "models_dir": str(models_dir),
        "models": [dataclasses.asdict(record) for record in records],
    }
    shared.emit(options, document, "\n".join(lines))
