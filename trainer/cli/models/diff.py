"""``churn-train models diff``."""

from __future__ import annotations

from typing import Any

import click

from trainer.cli import options as shared


@click.command(name="diff")
@click.argument("first", metavar="A")
@click.argument("second", metavar="[B]", required=False)
@shared.models_dir_option
@shared.output_options
def command(first: str, second: str | None, **options: Any) -> None:
    """Compare models A and B: settings, features, training, metrics, thresholds, versions.

    Each is a bundle id or run id, or the beginning of one; without B, A is compared with the
    champion. What is equal is left out, but for the test metrics.
    """
    from trainer.cli.models.tables import difference_page
    from trainer.errors import RegistryError
    from trainer.release.model_differences import compare_models
    from trainer.release.registry import champion_id, find_bundle_id

    models_dir = shared.resolve_models_dir(options)
    found = find_bundle_id(models_dir, first)
    wanted = second if second is not None else champion_id(models_dir)
    if wanted is None:
        raise RegistryError("no champion to compare with; name two models: models diff A B")
    document = compare_models(models_dir, found, find_bundle_id(models_dir, wanted))
    shared.emit(options, document, difference_page(document))
