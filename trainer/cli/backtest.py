"""``churn-train backtest``."""

from __future__ import annotations

import datetime
from typing import Any

import click

from trainer.cli import options as shared


def _dates(_: click.Context, __: click.Parameter, text: str | None) -> tuple[datetime.date, ...]:
    """Read ``2024-01-01,2024-02-01``."""
    try:
        parts = text.split(",") if text else []
        return tuple(datetime.date.fromisoformat(part.strip()) for part in parts)
    except ValueError as error:
        raise click.BadParameter(f"{text!r}; allowed: dates such as 2024-01-01") from error


@click.command(name="backtest")
@click.argument("snapshot", required=False)
@click.option(
    "--num-cutoffs", type=int, default=6, show_default=True, help="Most test cutoffs, the newest."
)
@click.option(
    "--every", type=int, default=4, show_default=True, help="Cutoffs from one test to the next."
)
@click.option("--dates", callback=_dates, help="Test cutoffs by name.  [default: the newest]")
@click.option(
    "--retrain-every",
    type=int,
    default=1,
    show_default=True,
    help="Tests from one training to the next; 0 trains once.",
)
@shared.fit_options
@shared.config_options
@shared.snapshots_dir_option
@shared.runs_dir_option
@shared.output_options
def command(snapshot: str | None, **options: Any) -> None:
    """Roll the cutoff through the history of SNAPSHOT: an id, the beginning of one, or a path.

    At each cutoff only what was known then is used. Shows quality and calibration over time, and
    how a model ages, so that you know how often to train. The same command goes on where it was
    stopped.
    """
    config = shared.make_config(options)
    from trainer.backtest import BacktestConfig, ageing, backtest
    from trainer.cli.tables import ageing_table, backtest_table
    from trainer.data.snapshot import Snapshot, find_snapshot

    plan = BacktestConfig(
        num_cutoffs=options["num_cutoffs"],
        every=options["every"],
        retrain_every=options["retrain_every"],
        dates=options["dates"],
    )
    opened = Snapshot.open(find_snapshot(options["snapshots_dir"], snapshot))
    folder, document = backtest(opened, config, plan, shared.make_workspace(options))
    older = ageing(document)
    text = f"{backtest_table(document)}\n\n{ageing_table(older)}\n\n{folder}"
    shared.emit(options, {"path": str(folder), "ageing": older, **document}, text)
