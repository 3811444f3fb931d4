"""Reads README.md: its commands, files and tables."""

from __future__ import annotations

import re
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
README = REPOSITORY / "README.md"

CODE_BLOCK = re.compile(
    r"(?:<!-- file: (?P<file>\S+) -->\n)?```(?P<language>\w+)\n(?P<code>.*?)```", re.DOTALL
)


def readme_text() -> str:
    return README.read_text(encoding="utf-8")


def bash_blocks() -> list[str]:
    """Every bash block, in order."""
    return [
        match["code"].strip()
        for match in CODE_BLOCK.finditer(readme_text())
        if match["language"] == "bash"
    ]


def sql_blocks() -> list[str]:
    return [
        match["code"].strip()
        for match in CODE_BLOCK.finditer(readme_text())
        if match["language"] == "sql"
    ]


def commands() -> list[str]:
    """Every command line of every bash block, in order."""
    return [line for block in bash_blocks() for line in block.splitlines() if line.strip()]


def example_files() -> dict[str, str]:
    """Path -> content of the files that the README tells its reader to write."""
    return {
        match["file"]: match["code"]
        for match in CODE_BLOCK.finditer(readme_text())
        if match["file"]
    }


def table_under(heading: str) -> list[list[str]]:
    """Cells of the first table below a heading, without its head."""
    section = readme_text().split(f"\n{heading}\n", 1)[1]
    rows: list[list[str]] = []
    for line in section.splitlines():
        if line.startswith("|"):
            rows.append([cell.strip() for cell in line.strip("|").split("|")])
        elif rows:
            break
    return rows[2:]


def code_of(cell: str) -> str:
    """Text of a table cell that is one piece of code."""
    assert cell.startswith("`"), cell
    assert cell.endswith("`"), cell
    return cell.strip("`")
