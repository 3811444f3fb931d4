"""`make`: its list of targets, and the errors of setting up an environment."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
SETUP = REPOSITORY / "scripts" / "setup_venv.sh"
SCRIPTS = [*sorted((REPOSITORY / "scripts").glob("*.sh")), REPOSITORY / ".ci" / "run"]
TARGETS = {"help", "demo", "test", "lint", "types", "bench", "check", "clean"}

needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def run(*command: str, cwd: Path = REPOSITORY) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


@needs_make
def test_help_is_the_default_and_names_every_target() -> None:
    completed = run("make", "--silent")
    listed = set(re.findall(r"^  ([a-z-]+)  ", completed.stdout, re.MULTILINE))
    assert completed.returncode == 0
    assert listed >= TARGETS


@needs_make
@pytest.mark.parametrize("target", sorted(TARGETS))
def test_target_can_be_planned(target: str) -> None:
    completed = run("make", "--dry-run", target)
    assert completed.returncode == 0, completed.stderr


@needs_make
def test_check_is_lint_types_and_test() -> None:
    plan = run("make", "--dry-run", "check").stdout
    for command in ("ruff check", "lint-imports", "lint_sql.sh", "mypy", "pytest"):
        assert command in plan


def test_ci_runs_make_check() -> None:
    assert "\nmake check\n" in (REPOSITORY / ".ci" / "run").read_text(encoding="utf-8")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_script_is_executable_and_parses(script: Path) -> None:
    assert script.stat().st_mode & 0o100
    completed = run("bash", "-n", str(script))
    assert completed.returncode == 0, completed.stderr


def test_no_python_is_a_clear_error(tmp_path: Path) -> None:
    completed = run(str(SETUP), "", "venv", "venv/.stamp-1", cwd=tmp_path)
    assert completed.returncode == 1
    assert "no Python 3.10, 3.11 or 3.12 found" in completed.stderr
    assert not (tmp_path / "venv").exists()


def test_unsupported_python_is_a_clear_error(tmp_path: Path) -> None:
    python = tmp_path / "python3.9"
    python.write_text(
        '#!/bin/sh\n[ "$1" = --version ] && echo "Python 3.9.1" && exit 0\nexit 1\n',
        encoding="utf-8",
    )
    python.chmod(0o755)
    completed = run(str(SETUP), str(python), "venv", "venv/.stamp-1", cwd=tmp_path)
    assert completed.returncode == 1
    assert "Python 3.9.1 is not supported" in completed.stderr
    assert "make PYTHON=" in completed.stderr


def test_failed_install_shows_pip_and_leaves_no_stamp(tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "python").symlink_to(sys.executable)
    pip = venv / "bin" / "pip"
    pip.write_text('#!/bin/sh\necho "ERROR: no such package"\nexit 1\n', encoding="utf-8")
    pip.chmod(0o755)
    stamp = venv / ".installed-dev-1"
    completed = run(str(SETUP), sys.executable, str(venv), str(stamp), "nothing", cwd=tmp_path)
    assert completed.returncode == 1
    assert "ERROR: no such package" in completed.stderr
    assert not stamp.exists()


def test_stamp_replaces_the_one_of_older_pins(tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "python").symlink_to(sys.executable)
    pip = venv / "bin" / "pip"
    pip.write_text("#!/bin/sh\nexit 0\n", encoding="utf-8")
    pip.chmod(0o755)
    older, newer, other = (venv / f".installed-{name}" for name in ("dev-1", "dev-2", "demo-1"))
    older.touch()
    other.touch()
    completed = run(str(SETUP), sys.executable, str(venv), str(newer), "nothing", cwd=tmp_path)
    assert completed.returncode == 0, completed.stderr
    assert (older.exists(), newer.exists(), other.exists()) == (False, True, True)
