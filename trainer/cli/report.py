"""``churn-train report``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from churn_udf.errors import ChurnError
from trainer.cli import options as shared

if TYPE_CHECKING:
    from churn_udf.models_location import ModelsDir
    from trainer.data.warehouse import Warehouse


@click.command(name="report")
@click.option(
    "--out",
    "--output",
    "out",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("churn_report.html"),
    show_default=True,
    help="File of the page; replaced if it is there.",
)
@click.option(
    "--users",
    type=click.IntRange(min=0, max=1_000),
    default=20,
    show_default=True,
    help="Customers to list by their id, those whose score changed most; 0 leaves ids out.",
)
@shared.warehouse_options
@shared.models_dir_option
@shared.config_options
@shared.output_options
def command(out: Path, users: int, **options: Any) -> None:
    """Write one HTML page on the model in service: is it healthy, and what is next.

    How past scores turned out, what drifted, who moved and why, which models there are, when the
    next one is due: read from the tables of the last `dbt build`, which it changes nothing of.
    """
    from trainer.health_report import health_facts, read_health, render_health, write_page

    warehouse = shared.make_warehouse(options)
    models_dir = shared.resolve_models_dir(options, warehouse)
    with shared.make_progress(options).step("report"):
        tables = read_health(warehouse, models_dir, users=users)
        plan, problem = retraining_plan(warehouse, options, models_dir)
        facts = health_facts(tables, retraining=plan, retraining_problem=problem)
        write_page(out, render_health(facts))
    text = f"{facts['verdict']['headline']}\n{out.absolute()}"
    shared.emit(options, {"path": str(out), **facts}, text)


def retraining_plan(
    warehouse: Warehouse, options: dict[str, Any], models_dir: ModelsDir
) -> tuple[Mapping[str, Any] | None, str | None]:
    """Return whether a new model is due, as ``run --if-due`` says it, or why that is not known."""
    from trainer.retraining import plan

    settings = shared.make_config(options).retraining
    try:
        return plan(warehouse, settings, models_dir).to_dict(), None
    except ChurnError as error:
        return None, str(error)
