from __future__ import annotations

import subprocess
import sys
import time

import click
import pytest
from click.testing import CliRunner

from churn_udf.cli import COMMANDS, main

HEAVY = ("torch", "transformers", "dbt", "duckdb", "pandas", "numpy", "pyarrow", "lightgbm")


@pytest.mark.parametrize("arguments", [[], *([name] for name in COMMANDS)], ids=str)
def test_help_imports_nothing_heavy_and_is_quick(arguments: list[str]) -> None:
    code = (
        "import sys\n"
        "from churn_udf.cli import main\n"
        "try:\n    main([*sys.argv[1:], '--help'], prog_name='churn-score')\n"
        f"finally:\n    print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)"
    )
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert done.stderr.strip() == "[]"
    assert done.stdout.startswith("Usage: churn-score")
    assert time.monotonic() - started < 5.0  # generous: the machine may be busy


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_has_help_and_a_default(name: str) -> None:
    command = main.get_command(click.Context(main), name)  # type: ignore[attr-defined]
    context = click.Context(command)
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.name
            record = parameter.get_help_record(context)
            assert record is not None
            assert "[default: " in record[1], f"{name} {parameter.name}"


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(["nothing"], id="command"),
        pytest.param(["batch", "--nothing"], id="option"),
        pytest.param(["batch", "--output-format", "csv"], id="format"),
        pytest.param(["serve", "--max-batch", "0"], id="range"),
        pytest.param(["serve", "--max-wait-ms", "-1"], id="wait"),
    ],
)
def test_wrong_usage_exits_2(arguments: list[str]) -> None:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert "Usage: " in result.stderr


def test_module_is_the_same_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "churn_udf.cli", "--version"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("churn-score, version ")
