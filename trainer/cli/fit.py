"""``churn-train fit``."""

from __future__ import annotations

from typing import Any

import click

from trainer.cli import options as shared


@click.command(name="fit")
@click.argument("snapshot", required=False)
@shared.fit_options
@shared.config_options
@shared.snapshots_dir_option
@shared.runs_dir_option
@shared.output_options
def command(snapshot: str | None, **options: Any) -> None:
    """Train a model on SNAPSHOT: an id, the beginning of one, or a path.

    Without SNAPSHOT the newest one is used. A run that was killed goes on from its checkpoint.
    """
    config = shared.make_config(options)
    from trainer.cli.tables import split_table
    from trainer.data.snapshot import Snapshot, find_snapshot
    from trainer.pipeline import fit_step, track, with_start
    from trainer.runs import FIT_FILE, SPLITS_FILE

    opened = Snapshot.open(find_snapshot(options["snapshots_dir"], snapshot))
    workspace = shared.make_workspace(options)
    config = with_start(opened, config, workspace)
    with track(opened, config, workspace) as tracked:
        run = fit_step(opened, config, workspace, on_log=tracked.on_log)
    facts = run.read_json(FIT_FILE)["facts"]
    splits = run.read_json(SPLITS_FILE)
    document = {
        "run_id": run.run_id,
        "path": str(run.path),
        "snapshot_id": run.snapshot_id,
        "facts": facts,
        "splits": splits["splits"],
        "valid_mode": splits["valid_mode"],
    }
    summary = ", ".join(f"{name} {value}" for name, value in facts.items())
    text = f"run {run.run_id}: {summary}\n{split_table(splits['splits'])}\n{run.path}"
    shared.emit(options, document, text)
