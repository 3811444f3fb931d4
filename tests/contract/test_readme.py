"""What README.md says is so: tables, vars, commands, links."""

from __future__ import annotations

import importlib.metadata
import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jinja2
import pytest

from tests.contract.readme import (
    REPOSITORY,
    code_of,
    commands,
    example_files,
    readme_text,
    table_under,
)

DEFAULTS_FILE = REPOSITORY / "dbt_project" / "macros" / "config" / "churn_var_defaults.sql"
MAKE_COMMANDS = [command for command in commands() if command.startswith("make ")]
PIP_COMMANDS = [command for command in commands() if command.startswith("pip ")]
MODEL_PATHS = [*(REPOSITORY / "dbt_project" / "models").rglob("*.sql")]


def var_defaults() -> dict[str, Any]:
    """The dict that the macro returns, rendered without dbt."""
    returned: list[dict[str, dict[str, Any]]] = []
    environment = jinja2.Environment(extensions=["jinja2.ext.do"])
    environment.globals["return"] = returned.append
    source = DEFAULTS_FILE.read_text(encoding="utf-8") + "{{ churn_var_defaults() }}"
    environment.from_string(source).render()
    return {f"churn__{name}": spec["default"] for name, spec in returned[0].items()}


def test_vars_table_is_the_defaults_dict() -> None:
    stated = {code_of(row[0]): json.loads(code_of(row[1])) for row in table_under("## Vars")}
    assert stated == var_defaults()
    assert list(stated) == list(var_defaults()), "same order, so that both are easy to compare"


def test_tables_are_models() -> None:
    stated = [code_of(row[0]) for row in table_under("## What you get")]
    assert stated
    assert set(stated) <= {path.stem for path in MODEL_PATHS}


def test_marts_are_listed() -> None:
    marts = {path.stem for path in MODEL_PATHS if "marts" in path.parts}
    assert marts <= {code_of(row[0]) for row in table_under("## What you get")}


def test_event_columns_are_the_contract_of_the_package() -> None:
    stated = [code_of(row[0]) for row in table_under("## On your own data")]
    macro = REPOSITORY / "dbt_project" / "macros" / "config" / "event_column_names.sql"
    names = re.findall(r"'(\w+)'", macro.read_text(encoding="utf-8"))
    assert sorted(stated) == sorted(names)


def test_commands_of_churn_train_are_listed() -> None:
    from trainer.cli import main

    stated = {code_of(row[0]) for row in table_under("## `churn-train`")}
    assert stated == {f"churn-train {name}" for name in main.list_commands(None)}


def test_commands_of_churn_score_are_listed() -> None:
    from churn_udf.cli import main

    stated = {code_of(row[0]) for row in table_under("## `churn-score`")}
    assert stated == {f"churn-score {name}" for name in main.list_commands(None)}


@pytest.mark.parametrize("command", MAKE_COMMANDS)
def test_make_targets_exist(command: str) -> None:
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    words = shlex.split(command)
    completed = subprocess.run(
        [words[0], "--dry-run", *words[1:]],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert completed.returncode == 0, completed.stderr


@pytest.mark.parametrize("command", PIP_COMMANDS)
def test_pip_commands_name_files_and_extras_that_exist(command: str) -> None:
    words = shlex.split(command)
    assert (REPOSITORY / words[words.index("-c") + 1]).is_file()
    extras = set(re.fullmatch(r"\.\[([\w,]+)\]", words[-1])[1].split(","))
    provided = importlib.metadata.metadata("warehouse-churn").get_all("Provides-Extra")
    assert extras <= set(provided)


def test_links_lead_somewhere() -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", readme_text())
    local = [target for target in targets if "://" not in target]
    assert local
    assert [target for target in local if not (REPOSITORY / target).exists()] == []


def test_example_files_are_yaml() -> None:
    import yaml

    assert len(example_files()) >= 4
    for name, content in example_files().items():
        assert isinstance(yaml.safe_load(content), dict), name


def test_documents_link_to_files_that_exist() -> None:
    for document in [*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)", document.read_text(encoding="utf-8")):
            if "://" in target:
                continue
            path: Path = document.parent / target
            assert path.exists(), f"{document.relative_to(REPOSITORY)} links to {target}"
