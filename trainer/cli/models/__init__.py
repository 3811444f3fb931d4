"""``churn-train models``: one command per verb, imported when it is called."""

from __future__ import annotations

import click

from trainer.cli import LazyGroup

COMMANDS = {
    "list": "List the models, newest first.",
    "show": "Tell all that is known of one model.",
    "diff": "Compare two models: settings, training, metrics, thresholds.",
    "promote": "Make a model the champion that passes the gate, or a shadow.",
    "rollback": "Go back to the champion before this one.",
    "retire": "Take a shadow or candidate out of use.",
    "prune": "Delete the files of models that nobody needs.",
}
DEFAULT_COMMAND = "list"


class ModelsGroup(LazyGroup):
    """Commands about models; without one they are listed."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read ``models --json`` as ``models list --json``."""
        if not args or (args[0].startswith("-") and args[0] not in ctx.help_option_names):
            args = [DEFAULT_COMMAND, *args]
        return super().parse_args(ctx, args)


@click.group(
    cls=ModelsGroup,
    name="models",
    package="trainer.cli.models",
    summaries=COMMANDS,
    interrupted="a move is logged whole or not at all: look at `churn-train models list`",
)
def command() -> None:
    """List models and move them: candidate, shadow, champion, retired.

    The champion scores; shadows score beside it. Who moved which model when and why is kept for
    good. Without a command the models are listed.
    """
