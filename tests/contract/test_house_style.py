"""House rules that no linter checks."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
MAX_LINES = 400
MAX_SQL_WIDTH = 88
MAX_MACRO_WIDTH = 100
"""Macros are programs, as wide as Python."""
SUFFIXES = {".css", ".html", ".js", ".md", ".py", ".sh", ".sql", ".toml", ".yml"}
IGNORED = {".demo", ".git", ".venv", ".venv-lint", "dbt_packages", "logs", "target"}


def our_files() -> list[Path]:
    """Files of the working tree that git does not ignore, by path."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(
            command, cwd=REPOSITORY, capture_output=True, text=True, check=True
        ).stdout
        paths = [REPOSITORY / line for line in listed.splitlines()]
    except (OSError, subprocess.CalledProcessError):  # a copy of the files, without git
        paths = [
            path
            for path in REPOSITORY.rglob("*")
            if not IGNORED & set(path.relative_to(REPOSITORY).parts)
        ]
    return [path for path in paths if path.is_file() and path.suffix in SUFFIXES]


def lines_of(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def test_files_are_short_enough_to_read() -> None:
    long = {
        str(path.relative_to(REPOSITORY)): len(lines_of(path))
        for path in our_files()
        # lists of columns, one description each, are looked up and not read
        if len(lines_of(path)) > MAX_LINES and not path.name.endswith("__models.yml")
    }
    assert long == {}


def test_sql_is_narrow() -> None:
    wide = [
        f"{path.relative_to(REPOSITORY)}:{number}"
        for path in our_files()
        if path.suffix == ".sql"
        for number, line in enumerate(lines_of(path), start=1)
        if len(line) > (MAX_MACRO_WIDTH if "macros" in path.parts else MAX_SQL_WIDTH)
    ]
    assert wide == []


@pytest.mark.parametrize("word", ["/tmp/" + "w", "/work/" + "main", "/root" + "/"])
def test_no_file_names_a_folder_of_one_machine(word: str) -> None:
    named = [path for path in our_files() if word in path.read_text(encoding="utf-8")]
    assert [str(path.relative_to(REPOSITORY)) for path in named] == []


def test_staging_alone_reads_sources_and_never_a_mart() -> None:
    models = REPOSITORY / "dbt_project" / "models"
    marts = {path.stem for path in (models / "marts").glob("*.sql")}
    problems = []
    for path in models.rglob("*.sql"):
        text = path.read_text(encoding="utf-8")
        is_staging = "staging" in path.parts
        if "source(" in text and not is_staging:
            problems.append(f"{path.stem} reads a source")
        if "marts" not in path.parts:
            problems += [f"{path.stem} reads {mart}" for mart in marts if f"'{mart}'" in text]
    assert problems == []
