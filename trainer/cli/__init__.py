"""The command line ``churn-train``: one command per step, imported when it is called.

Exit codes: 0 done, 1 an expected failure (one clear line), 2 wrong usage, 3 quality gate not
met, 130 interrupted.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from typing import Any

import click

from churn_udf import __version__
from churn_udf.errors import ChurnError

EXIT_FAILURE = 1
EXIT_GATE = 3
EXIT_INTERRUPTED = 130
COMMANDS = {
    "run": "Snapshot, fit, evaluate, package and promote: everything between two dbt builds.",
    "snapshot": "Export churn_examples from the warehouse to a snapshot.",
    "fit": "Train a model on a snapshot.",
    "evaluate": "Judge a trained run against baselines and write its report.",
    "package": "Make a bundle of an evaluated run.",
    "promote": "Choose the bundle that the next dbt build scores with.",
    "models": "List the bundles.",
    "backtest": "Roll the cutoff through history: quality over time, and how a model ages.",
    "learning-curve": "Measure quality by number of labels.",
    "label-candidates": "Export the users whose label would teach most.",
    "parity": "Compare the warehouse's scores with offline scores.",
    "tune": "Search for better training settings, never looking at the test split.",
}


class LazyGroup(click.Group):
    """A group whose commands live in modules of their own, imported when called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the command names in the order of use."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"trainer.cli.{cmd_name.replace('-', '_')}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command and turn errors into one line and an exit code."""
        try:
            return super().invoke(ctx)
        except ChurnError as error:
            from trainer.errors import QualityGateError

            click.echo(f"error: {error}", err=True)
            ctx.exit(EXIT_GATE if isinstance(error, QualityGateError) else EXIT_FAILURE)
        except (KeyboardInterrupt, click.Abort):
            click.echo(
                "interrupted: nothing half-written was left behind; the same command goes on "
                "from the last checkpoint",
                err=True,
            )
            ctx.exit(EXIT_INTERRUPTED)
        except BrokenPipeError:
            with contextlib.suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(EXIT_FAILURE)


@click.group(
    cls=LazyGroup,
    name="churn-train",
    context_settings={"help_option_names": ["--help", "-h"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="churn-train")
def main() -> None:
    """Train churn models on the examples that dbt builds, and hand them to the warehouse.

    Windows, columns and everything else about the data are dbt vars: give commands that read the
    warehouse the same --project-dir, --profiles-dir, --target and --vars as `dbt build`.
    """
