"""``churn-train label-candidates``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from trainer.cli import options as shared

SHOWN = 10


@click.command(name="label-candidates")
@click.argument("run", required=False)
@click.option(
    "--count", type=click.IntRange(min=1), default=100, show_default=True, help="Users to export."
)
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File to write, .csv or .parquet.  [default: label_candidates.csv in the run's folder]",
)
@click.option(
    "--snapshot",
    help="Snapshot with the users: an id, the beginning of one, or a path.  "
    "[default: the one that the run was trained on]",
)
@shared.snapshots_dir_option
@shared.runs_dir_option
@shared.output_options
def command(run: str | None, out: Path | None, snapshot: str | None, **options: Any) -> None:
    """Export the users whose label would teach RUN most: uncertain ones, and no two alike.

    Without RUN the newest one is asked. Candidates are the users at the score cutoff whose label is
    not known yet.
    """
    from trainer.data.snapshot import Snapshot, find_snapshot
    from trainer.few_labels.label_candidates import (
        label_candidates,
        require_suffix,
        write_candidates,
    )
    from trainer.runs import open_run

    opened = open_run(options["runs_dir"], run)
    path = out or opened.path / "label_candidates.csv"
    require_suffix(path)
    found = find_snapshot(options["snapshots_dir"], snapshot) if snapshot else opened.snapshot_path
    progress = shared.make_progress(options)
    table = label_candidates(
        opened, Snapshot.open(found), count=options["count"], progress=progress
    )
    write_candidates(table, path)
    document = {"run_id": opened.run_id, "path": str(path), "candidates": table.to_pylist()}
    lines = [
        f"{row['rank']:>4}  {row['user_id']}  {row['probability']:.3f}  {row['reason']}"
        for row in document["candidates"][:SHOWN]
    ]
    more = f"the first {len(lines)} of {table.num_rows}:"
    shared.emit(options, document, "\n".join([more, *lines, str(path)]))
