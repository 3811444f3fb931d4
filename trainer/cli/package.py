"""``churn-train package``."""

from __future__ import annotations

from typing import Any

import click

from trainer.cli import options as shared


@click.command(name="package")
@click.argument("run", required=False)
@shared.runs_dir_option
@shared.models_dir_option
@shared.output_options
def command(run: str | None, **options: Any) -> None:
    """Make a bundle of RUN: an id, the beginning of one, or a path.

    Without RUN the newest one is packaged. The bundle is read back and must repeat the run's
    predictions. `churn-train promote` makes it score.
    """
    from trainer.data.snapshot import Snapshot
    from trainer.pipeline import package_step
    from trainer.runs import open_run

    opened = open_run(options["runs_dir"], run)
    snapshot = Snapshot.open(opened.snapshot_path)
    bundle = package_step(opened, snapshot, shared.make_workspace(options))
    document = {
        "bundle_id": bundle.bundle_id,
        "path": str(bundle.directory),
        "run_id": opened.run_id,
        "files": dict(bundle.manifest.files),
    }
    text = (
        f"bundle {bundle.bundle_id} of run {opened.run_id}\n{bundle.directory}\n"
        f"next: churn-train promote {bundle.bundle_id}"
    )
    shared.emit(options, document, text)
