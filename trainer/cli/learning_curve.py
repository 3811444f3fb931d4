"""``churn-train learning-curve``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from trainer.cli import options as shared


def _whole_numbers(_: click.Context, __: click.Parameter, text: str) -> tuple[int, ...]:
    """Read ``100,300``."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise click.BadParameter(f"{text!r}; allowed: whole numbers such as 100,300") from error


@click.command(name="learning-curve")
@click.argument("snapshot", required=False)
@click.option(
    "--sizes",
    default="100,300,1000,3000,10000",
    show_default=True,
    callback=_whole_numbers,
    help="Labelled training rows of the points.",
)
@click.option("--seeds", type=int, default=3, show_default=True, help="Draws and models a point.")
@click.option(
    "--draw",
    type=click.Choice(["stratified", "plain"]),
    default="stratified",
    show_default=True,
    help="Keep the share of churners in every subset, or draw as it comes.",
)
@click.option(
    "--models",
    default="pretrained,plain,logistic,lightgbm",
    show_default=True,
    help="Models to measure.",
)
@click.option(
    "--split",
    type=click.Choice(["valid", "test"]),
    default="valid",
    show_default=True,
    help="Rows to judge on; test is for a final report, nothing may be chosen by it.",
)
@click.option(
    "--out",
    type=shared.FOLDER,
    help="Folder of the results.  [default: <runs-dir>/learning-curve-<id>]",
)
@shared.fit_options
@shared.config_options
@shared.snapshots_dir_option
@shared.runs_dir_option
@shared.output_options
def command(snapshot: str | None, out: Path | None, **options: Any) -> None:
    """Measure quality by number of labels on SNAPSHOT: an id, the beginning of one, or a path.

    Without SNAPSHOT the newest one is used. Finished points are kept: the same command goes on
    where it was stopped, and more --sizes, --seeds or --models add to what is there.
    """
    config = shared.make_config(options)
    from trainer.data.snapshot import Snapshot, find_snapshot
    from trainer.few_labels import chart
    from trainer.few_labels.learning_curve import (
        CurveConfig,
        curve_id,
        measure_curve,
        models_of,
    )
    from trainer.runs import write_text

    opened = Snapshot.open(find_snapshot(options["snapshots_dir"], snapshot))
    models = tuple(part.strip() for part in options["models"].split(","))
    curve = CurveConfig(
        sizes=options["sizes"],
        seeds=options["seeds"],
        draw=options["draw"],
        split=options["split"],
        models=tuple(models_of(config.fit, models)),
    )
    folder = out or options["runs_dir"] / f"learning-curve-{curve_id(opened, config, curve)}"
    document = measure_curve(opened, config, curve, folder, shared.make_progress(options))
    page = folder / chart.CHART_FILE
    write_text(page, chart.render_curve(document))
    tables = [chart.curve_table(document, metric) for metric in chart.METRIC_LABELS]
    text = "\n\n".join([*tables, f"chart: {page}"])
    shared.emit(options, {"chart": str(page), **document}, text)
