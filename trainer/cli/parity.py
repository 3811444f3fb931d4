"""``churn-train parity``."""

from __future__ import annotations

import dataclasses
from typing import Any

import click

from trainer.cli import options as shared


@click.command(name="parity")
@click.option(
    "--rows",
    type=click.IntRange(min=1),
    default=2_000,
    show_default=True,
    help="Rows to compare, spread over churn_scores.",
)
@click.option("--device", default="auto", show_default=True, help="Where to score offline.")
@shared.warehouse_options
@shared.models_dir_option
@shared.output_options
def command(rows: int, device: str, **options: Any) -> None:
    """Compare the warehouse's scores with offline scores of the same rows.

    Three doors must agree within 1e-5: the table churn_scores, the SQL function churn_score(),
    and the model called directly.
    """
    from trainer.release.parity import compare_with_warehouse

    warehouse = shared.make_warehouse(options)
    models_dir = shared.resolve_models_dir(options, warehouse)
    with shared.make_progress(options).step("parity"):
        report = compare_with_warehouse(warehouse, models_dir, max_rows=rows, device=device)
    text = (
        f"bundle {report.bundle_id}, {report.num_rows:,} rows: largest difference to offline "
        f"scores {report.table_difference:.1e} (churn_scores), "
        f"{report.function_difference:.1e} (churn_score())"
    )
    shared.emit(options, dataclasses.asdict(report), text)
