from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable

import click
import pytest
from click.testing import Result

from trainer.cli import COMMANDS, LazyGroup, main
from trainer.cli.models import COMMANDS as MODELS_COMMANDS
from trainer.config import TrainConfig

HEAVY = ("torch", "transformers", "dbt", "duckdb", "pandas", "numpy", "pyarrow", "sklearn")


LEAVES = (
    *(name for name in COMMANDS if name != "models"),
    *(f"models {name}" for name in MODELS_COMMANDS),
)
"""Commands that do something."""


def members(group: click.Command) -> dict[str, click.Command]:
    context = click.Context(group)
    assert isinstance(group, LazyGroup)
    found = {name: group.get_command(context, name) for name in group.list_commands(context)}
    return {name: command for name, command in found.items() if command is not None}


def commands() -> dict[str, click.Command]:
    found = members(main)
    models = members(found.pop("models"))
    return {**found, **{f"models {name}": command for name, command in models.items()}}


def test_every_listed_command_exists() -> None:
    assert list(members(main)) == list(COMMANDS)
    assert list(commands()) == list(LEAVES)
    assert main.get_command(click.Context(main), "nothing") is None  # type: ignore[attr-defined]


@pytest.mark.parametrize("arguments", [[], ["models"], *(name.split() for name in LEAVES)], ids=str)
def test_help_imports_nothing_heavy_and_is_quick(arguments: list[str]) -> None:
    code = (
        "import sys\n"
        "from trainer.cli import main\n"
        "try:\n    main([*sys.argv[1:], '--help'], prog_name='churn-train')\n"
        f"finally:\n    print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)"
    )
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert done.stderr.strip() == "[]"
    assert done.stdout.startswith("Usage: churn-train")
    assert time.monotonic() - started < 5.0  # generous: the machine may be busy


def test_group_help_lists_every_command(invoke: Callable[..., Result]) -> None:
    text = invoke("--help").stdout
    for name in COMMANDS:
        assert re.search(rf"^  {name} ", text, re.MULTILINE)


@pytest.mark.parametrize("name", LEAVES)
def test_every_option_has_help_and_a_default(name: str) -> None:
    command = commands()[name]
    context = click.Context(command)
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.name
            record = parameter.get_help_record(context)
            assert record is not None
            assert "[default: " in record[1], f"{name} {parameter.name}"


@pytest.mark.parametrize("name", LEAVES)
def test_every_command_has_json_and_quiet(name: str) -> None:
    assert {"as_json", "quiet"} <= {parameter.name for parameter in commands()[name].params}


def test_defaults_in_help_are_the_real_ones(invoke: Callable[..., Result]) -> None:
    text = " ".join(invoke("fit", "--help").stdout.split())
    fit = TrainConfig().fit
    assert f"Seed of everything random. [default: {fit.seed}]" in text
    assert f"Passes of fine-tuning. [default: {fit.epochs}]" in text
    assert f"[default: {fit.encoder}]" in text
    assert f"cuda:1, ... [default: {fit.device}]" in text


def test_module_is_the_same_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "trainer", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("churn-train, version ")
