"""Runs the demo's steps: shows what is run, how far it is and how long it took."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

DBT_LINE = re.compile(r"^\d\d:\d\d:\d\d\s*(?P<text>.*)$")
DBT_NODE = re.compile(
    r"^(?P<index>\d+) of (?P<total>\d+) "
    r"(?P<status>START|OK|PASS|WARN|FAIL|ERROR|SKIP|NO-OP)\b\s*(?P<what>.*?)"
    r"[ .]*\[(?P<result>[^\[\]]*)\]$"
)
CREATED = re.compile(
    r"^(?:created|loaded) (?:sql|python|seed) ?(?:\w+ )*?model |^loaded seed file "
)
NOT_SHOWN = re.compile(
    r"^$|^Running with dbt|^Registered adapter|^Unable to do partial parsing|^Found \d"
    r"|^Concurrency: |^\d+ of \d+ (?:START|OK) hook: |^Finished running|^Completed successfully"
)
SOURCE_SUFFIXES = {".csv", ".json", ".py", ".sql", ".yml"}
IGNORED_PARTS = {"__pycache__", "dbt_packages", "logs", "target"}
TAIL_LINES = 40
TEST_STEP = 25


class StepFailed(Exception):
    """A command of the demo did not succeed; its output has been shown."""


class Console:
    """Writes the demo's own lines; on a terminal, the line in progress is redrawn."""

    def __init__(self, num_steps: int) -> None:
        self._num_steps = num_steps
        self._step = 0
        self._is_terminal = sys.stdout.isatty()
        self._width = 0

    @contextlib.contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Shows the title of one step before it and its wall time after it."""
        self._step += 1
        self.write(f"\n[{self._step}/{self._num_steps}] {title}")
        started_at = time.monotonic()
        yield
        self.write(f"      done in {time.monotonic() - started_at:.1f} s")

    def write(self, text: str = "") -> None:
        """Writes one line, over the line in progress if there is one."""
        if self._width:
            print("\r" + " " * self._width + "\r", end="")
            self._width = 0
        print(text, flush=True)

    def redraw(self, text: str) -> None:
        """Shows the line in progress; on anything but a terminal, shows nothing."""
        if self._is_terminal:
            text = text[:100]
            print("\r" + text.ljust(self._width), end="", flush=True)
            self._width = len(text)


class StepRecord:
    """Remembers what each finished step depended on, so that an unchanged one is skipped.

    Args:
        path: JSON file of the record.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def is_done(self, step: str, fingerprint: str) -> bool:
        """Says whether the step last ended well with the same fingerprint."""
        return self._read().get(step) == fingerprint

    def start(self, step: str) -> None:
        """Forgets a step that is about to run: it may not end."""
        self._write({name: value for name, value in self._read().items() if name != step})

    def finish(self, step: str, fingerprint: str) -> None:
        """Records that a step has ended well."""
        self._write({**self._read(), step: fingerprint})

    def _read(self) -> dict[str, str]:
        if not self._path.exists():
            return {}
        content: dict[str, str] = json.loads(self._path.read_text(encoding="utf-8"))
        return content

    def _write(self, content: dict[str, str]) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        partial = self._path.with_suffix(".partial")
        partial.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        partial.replace(self._path)


def fingerprint_of(paths: Sequence[Path], *texts: str) -> str:
    """Hashes files, all source files below folders, and texts; a missing path counts as such."""
    digest = hashlib.sha256()
    for path in paths:
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in files:
            if file.suffix in SOURCE_SUFFIXES and not IGNORED_PARTS & set(file.parts):
                content = file.read_bytes() if file.is_file() else b"missing"
                digest.update(f"{file}\0{len(content)}\0".encode() + content)
    for text in texts:
        digest.update(f"{len(text)}\0{text}".encode())
    return digest.hexdigest()


def show_command(console: Console, command: Sequence[str]) -> None:
    """Shows a command as one could type it."""
    console.write(f"      $ {shlex.join(command)}")


def run_dbt(
    console: Console, command: Sequence[str], env: Mapping[str, str], log_path: Path
) -> None:
    """Runs dbt, condenses its output and keeps all of it in a file.

    Models are shown one line each, tests as a count; what is not dbt's own (the scorer's
    progress) passes through.

    Args:
        console: Where to write.
        command: dbt's command line; the program is the first item.
        env: The whole environment.
        log_path: File for the unabridged output.

    Raises:
        StepFailed: dbt ended with an error; the last lines have been shown.
    """
    log_path.parent.mkdir(parents=True, exist_ok=True)
    lines: list[str] = []
    with (
        log_path.open("w", encoding="utf-8") as log,
        subprocess.Popen(
            command,
            env=dict(env),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
        ) as process,
    ):
        assert process.stdout is not None
        for raw_line in process.stdout:
            log.write(raw_line)
            line = raw_line.rstrip()
            lines.append(line)
            show_dbt_line(console, line)
    if process.returncode != 0:
        console.write("\n".join(lines[-TAIL_LINES:]))
        raise StepFailed(
            f"dbt ended with exit code {process.returncode}; the whole output is in {log_path}"
        )


def show_dbt_line(console: Console, line: str) -> None:
    """Shows one line of dbt's output, shortened; most lines are not worth showing."""
    stamped = DBT_LINE.match(line)
    if not stamped:
        if line.strip():
            console.write(f"      {line}")
        return
    text = stamped["text"]
    if text.startswith("Done. "):
        console.write(f"      {text.removeprefix('Done. ')}")
        return
    node = DBT_NODE.match(text)
    if not node:
        if not NOT_SHOWN.match(text):
            console.write(f"      {text}")
        return
    place = f"{node['index']:>4} of {node['total']}"
    if node["status"] == "START":
        console.redraw(f"      {place}  {node['what']} ...")
    elif node["status"] == "OK" and CREATED.match(node["what"]):
        seconds = node["result"].rpartition(" in ")[2]
        console.write(f"      {place}  {CREATED.sub('', node['what'])}  {seconds}")
    elif node["status"] == "PASS" and int(node["index"]) % TEST_STEP == 0:
        console.write(f"      {place}  (tests)")
    elif node["status"] in {"WARN", "FAIL", "ERROR"}:
        console.write(f"      {place}  {node['status']} {node['what']}")


def run_for_result(command: Sequence[str], env: Mapping[str, str]) -> str:
    """Runs a command whose progress goes to standard error, and returns its standard output.

    Raises:
        StepFailed: The command ended with an error; it has said why on standard error.
    """
    completed = subprocess.run(
        command, env=dict(env), stdout=subprocess.PIPE, text=True, encoding="utf-8", check=False
    )
    if completed.returncode != 0:
        raise StepFailed(f"`{shlex.join(command[:2])}` ended with exit code {completed.returncode}")
    return completed.stdout
