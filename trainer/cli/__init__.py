"""The command line ``churn-train``: one command per step, imported when it is called.

Exit codes: 0 done, 1 an expected failure (one clear line), 2 wrong usage, 3 quality gate not
met, 130 interrupted.
"""

from __future__ import annotations

import click

from churn_udf import __version__
from churn_udf.cli import group
from churn_udf.errors import ChurnError

EXIT_GATE = 3
COMMANDS = {
    "run": "Snapshot, fit, evaluate, package and promote: everything between two dbt builds.",
    "snapshot": "Export churn_examples from the warehouse to a snapshot.",
    "fit": "Train a model on a snapshot.",
    "evaluate": "Judge a trained run against baselines and write its report.",
    "package": "Make a bundle of an evaluated run.",
    "promote": "Choose the bundle that the next dbt build scores with.",
    "models": "List the bundles.",
    "report": "Write one HTML page: is the model in service healthy, and what is next.",
    "backtest": "Roll the cutoff through history: quality over time, and how a model ages.",
    "learning-curve": "Measure quality by number of labels.",
    "label-candidates": "Export the users whose label would teach most.",
    "parity": "Compare the warehouse's scores with offline scores.",
    "tune": "Search for better training settings, never looking at the test split.",
}


class LazyGroup(group.LazyGroup):
    """Commands of the trainer; the quality gate has an exit code of its own."""

    def exit_code_of(self, error: ChurnError) -> int:
        """Return the exit code of an expected failure."""
        from trainer.errors import QualityGateError

        return EXIT_GATE if isinstance(error, QualityGateError) else group.EXIT_FAILURE


@click.group(
    cls=LazyGroup,
    name="churn-train",
    package="trainer.cli",
    summaries=COMMANDS,
    interrupted="nothing half-written was left behind; the same command goes on from the last "
    "checkpoint",
    context_settings={"help_option_names": ["--help", "-h"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="churn-train")
def main() -> None:
    """Train churn models on the examples that dbt builds, and hand them to the warehouse.

    Windows, columns and everything else about the data are dbt vars: give commands that read the
    warehouse the same --project-dir, --profiles-dir, --target and --vars as `dbt build`.
    """
