"""The import rules of pyproject.toml hold, and the tool that checks them can fail."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-c",
        "import sys; sys.path.insert(0, '.'); "
        "from importlinter.cli import lint_imports_command; lint_imports_command()",
        "--config",
        "pyproject.toml",
        "--no-cache",
        "--no-logo",
    ]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_import_rules_hold() -> None:
    completed = lint_imports(REPOSITORY)
    assert completed.returncode == 0, completed.stdout + completed.stderr


def test_import_rules_catch_the_scorer_importing_the_trainer(tmp_path: Path) -> None:
    for name in ("churn_udf", "trainer"):
        shutil.copytree(
            REPOSITORY / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__")
        )
    shutil.copy(REPOSITORY / "pyproject.toml", tmp_path)
    with (tmp_path / "churn_udf" / "errors.py").open("a", encoding="utf-8") as stream:
        stream.write("\nimport trainer.errors  # noqa\n")

    completed = lint_imports(tmp_path)

    assert completed.returncode == 1
    assert "trainer imports churn_udf, never the reverse BROKEN" in completed.stdout
