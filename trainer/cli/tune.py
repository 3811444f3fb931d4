"""``churn-train tune``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import click

from trainer.cli import options as shared
from trainer.tune.config import PRUNERS, SAMPLERS, TuneConfig

DEFAULTS = TuneConfig()
SHOWN_TRIALS = 10


@click.command(name="tune")
@click.argument("snapshot", required=False)
@click.option(
    "--sampler",
    type=click.Choice(SAMPLERS),
    default=DEFAULTS.sampler,
    show_default=True,
    help="Who chooses the settings of a trial.",
)
@click.option(
    "--pruner",
    type=click.Choice(PRUNERS),
    default=DEFAULTS.pruner,
    show_default=True,
    help="Which trials are given up at a look at validation rows.",
)
@click.option(
    "--trials",
    "num_trials",
    type=click.IntRange(min=1),
    default=DEFAULTS.num_trials,
    show_default=True,
    help="Trials of the study in all, earlier and parallel ones included.",
)
@click.option(
    "--max-minutes",
    type=click.FloatRange(min=0, min_open=True),
    help="Minutes after which this process stops; a trial under way is kept for the next.  "
    "[default: none]",
)
@click.option(
    "--seeds",
    "num_seeds",
    type=click.IntRange(min=1),
    default=DEFAULTS.num_seeds,
    show_default=True,
    help="Seeds that each trial trains with, from --seed on; their mean counts.",
)
@click.option(
    "--space",
    "space_file",
    type=shared.FILE,
    help="YAML file with the settings to search, see docs/tuning_and_tracking.md.  "
    "[default: learning rates, dropout, passes, bins and size]",
)
@click.option(
    "--studies-dir",
    type=shared.FOLDER,
    default=Path("studies"),
    show_default=True,
    envvar="CHURN_TRAIN_STUDIES_DIR",
    help="Folder of all studies.",
)
@shared.fit_options
@shared.config_options
@shared.snapshots_dir_option
@shared.output_options
def command(
    snapshot: str | None, space_file: Path | None, studies_dir: Path, **options: Any
) -> None:
    """Search for better training settings on SNAPSHOT: an id, its beginning, or a path.

    Trials are judged by log loss on validation rows; the test rows are cut away first. The same
    command goes on with its study, and may run in several processes at once.
    """
    config = shared.make_config(options)
    from trainer.data.snapshot import Snapshot, find_snapshot
    from trainer.tune.results import trial_table
    from trainer.tune.search import tune
    from trainer.tune.space import read_space

    fields = {field.name for field in dataclasses.fields(TuneConfig)}
    settings = TuneConfig(**{name: options[name] for name in fields})
    space = None if space_file is None else read_space(space_file, config.fit)
    opened = Snapshot.open(find_snapshot(options["snapshots_dir"], snapshot))
    progress = shared.make_progress(options)
    outcome = tune(opened, config, settings, studies_dir, space=space, progress=progress)
    document = {
        "study_id": outcome.study_id,
        "snapshot_id": opened.snapshot_id,
        "path": str(outcome.folder),
        "config": str(outcome.config_file),
        "best": dataclasses.asdict(outcome.best),
        "trials": [dataclasses.asdict(row) for row in outcome.trials],
    }
    text = (
        f"{trial_table(outcome.trials, SHOWN_TRIALS)}\n\nstudy {outcome.study_id}, best trial "
        f"{outcome.best.number}: validation log loss {outcome.best.value:.4f}\n"
        f"next: churn-train run --config {outcome.config_file}"
    )
    shared.emit(options, document, text)
