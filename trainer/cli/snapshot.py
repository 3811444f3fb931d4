"""``churn-train snapshot``."""

from __future__ import annotations

from typing import Any

import click

from trainer.cli import options as shared


@click.command(name="snapshot")
@shared.warehouse_options
@shared.snapshots_dir_option
@shared.config_options
@shared.output_options
def command(**options: Any) -> None:
    """Export churn_examples from the warehouse to a snapshot.

    The same rows give the same snapshot id; a snapshot that is there is not written twice.
    """
    config = shared.make_config(options)
    from trainer.data.export import export_snapshot

    snapshot = export_snapshot(
        shared.make_warehouse(options),
        options["snapshots_dir"],
        config=config.snapshot,
        progress=shared.make_progress(options),
    )
    mature = sum(1 for cutoff in snapshot.document["cutoffs"] if cutoff["mature_rows"])
    document = {
        "snapshot_id": snapshot.snapshot_id,
        "path": str(snapshot.path),
        "rows": snapshot.num_rows,
        "features": len(snapshot.features),
        "score_cutoff_date": snapshot.document["score_cutoff_date"],
        "cutoffs": snapshot.document["cutoffs"],
    }
    text = (
        f"snapshot {snapshot.snapshot_id}: {snapshot.num_rows:,} rows, "
        f"{len(snapshot.features)} features, {len(snapshot.document['cutoffs'])} cutoffs "
        f"({mature} with known labels), score cutoff {document['score_cutoff_date']}\n"
        f"{snapshot.path}"
    )
    shared.emit(options, document, text)
