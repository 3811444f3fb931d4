"""``churn-train evaluate``."""

from __future__ import annotations

import dataclasses
from typing import Any

import click

from trainer.cli import options as shared


@click.command(name="evaluate")
@click.argument("run", required=False)
@shared.config_options
@shared.runs_dir_option
@shared.output_options
def command(run: str | None, **options: Any) -> None:
    """Judge RUN (an id, the beginning of one, or a path) against baselines; write its report.

    Without RUN the newest one is judged. With --config or --set its evaluate and thresholds
    settings are replaced; training settings stay those of the run.
    """
    from trainer.cli.tables import metric_table, verdict
    from trainer.config import to_yaml
    from trainer.data.snapshot import Snapshot
    from trainer.pipeline import evaluate_step
    from trainer.runs import CONFIG_FILE, REPORT_FILE, open_run, write_text

    opened = open_run(options["runs_dir"], run)
    if options["config_file"] or options["settings"]:
        config = shared.make_config(options)
        kept = dataclasses.replace(
            opened.config, evaluate=config.evaluate, thresholds=config.thresholds
        )
        opened = dataclasses.replace(opened, config=kept)
        write_text(opened.path / CONFIG_FILE, to_yaml(kept))
    snapshot = Snapshot.open(opened.snapshot_path)
    metrics = evaluate_step(opened, snapshot, shared.make_workspace(options))
    report = opened.path / REPORT_FILE
    document = {"report": str(report), **metrics}
    text = f"{metric_table(metrics)}\n\n{verdict(metrics)}\nreport: {report}"
    shared.emit(options, document, text)
