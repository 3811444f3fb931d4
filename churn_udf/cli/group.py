"""A command group that stays light: commands are imported when called, errors become one line."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Mapping
from typing import Any

import click

from churn_udf.errors import ChurnError

EXIT_FAILURE = 1
EXIT_INTERRUPTED = 130


class LazyGroup(click.Group):
    """A group whose commands live in modules of their own, imported when called.

    Args:
        package: Package with one module a command, each with the attribute ``command``.
        summaries: Command name -> line in the group's help, in the order of use.
        interrupted: What to say after Ctrl-C.
        attributes: Everything else that ``click.Group`` takes.
    """

    def __init__(
        self, *, package: str, summaries: Mapping[str, str], interrupted: str, **attributes: Any
    ) -> None:
        super().__init__(**attributes)
        self._package = package
        self._summaries = dict(summaries)
        self._interrupted = interrupted

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the command names in the order of use."""
        return list(self._summaries)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command."""
        if cmd_name not in self._summaries:
            return None
        module = importlib.import_module(f"{self._package}.{cmd_name.replace('-', '_')}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(self._summaries.items()))

    def exit_code_of(self, error: ChurnError) -> int:
        """Return the exit code of an expected failure."""
        return EXIT_FAILURE

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command and turn errors into one line and an exit code."""
        try:
            return super().invoke(ctx)
        except ChurnError as error:
            click.echo(f"error: {error}", err=True)
            ctx.exit(self.exit_code_of(error))
        except (KeyboardInterrupt, click.Abort):
            click.echo(f"interrupted: {self._interrupted}", err=True)
            ctx.exit(EXIT_INTERRUPTED)
        except BrokenPipeError:
            with contextlib.suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(EXIT_FAILURE)
