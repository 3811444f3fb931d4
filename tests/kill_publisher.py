"""Script: cut the writer of published tables at every one of its lines, and look each time.

    python kill_publisher.py FOLDER kill|fail

Each line is cut in a process of its own, by an exit without clean-up as after ``kill -9``, or by
"no space left". Prints how many lines were cut, and how often readers then saw the old version.
"""

from __future__ import annotations

import os
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import FrameType
from typing import Any

from churn_udf.contracts.bundle import sha256_of_file
from churn_udf.errors import PublishError
from churn_udf.publishing import PublishedVersion, publish, read_published

START = datetime(2026, 1, 1, 6, tzinfo=timezone.utc)
DAY = timedelta(days=1)
TRACED = ("publishing.py", "bundle_files.py", "kill_publisher.py")
CUT, FAILED = 9, 8


def publish_text(
    folder: Path, content: str, *, now: datetime = START, keep: int = 3
) -> tuple[PublishedVersion, bool]:
    """Publish two tables of one content."""

    def write(directory: Path) -> dict[str, int]:
        for name in ("scores", "current_scores"):
            (directory / f"{name}.parquet").write_text(f"{name}: {content}")
        return {"scores": 2, "current_scores": 1}

    return publish(
        folder,
        fingerprint=content.encode().hex().ljust(8, "0"),
        write_tables=write,
        bundle_id="model1",
        cutoff_date="2026-01-01",
        keep=keep,
        now=now,
    )


def contents(folder: Path) -> set[str]:
    """Return what readers see by pointer and by link, having checked that files are whole."""
    current = read_published(folder)
    assert current is not None
    seen = set()
    for name, table in current.tables.items():
        assert table.path.stat().st_size == table.bytes
        assert sha256_of_file(table.path) == table.sha256
        seen.add(table.path.read_text().removeprefix(f"{name}: "))
        linked = folder / "current" / f"{name}.parquet"
        seen.add("link " + linked.read_text().removeprefix(f"{name}: "))
    return seen


def names_in(folder: Path) -> list[str]:
    """Return the sorted names of a folder's entries, hidden ones too."""
    return sorted(path.name for path in folder.iterdir())


def cut_at(line: int, how: str) -> Any:
    """Return a trace function that cuts at the line-th line to run."""
    seen = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal seen
        if not frame.f_code.co_filename.endswith(TRACED):
            return None
        if event == "line":
            seen += 1
            if seen == line and how == "kill":
                os._exit(CUT)
            if seen == line:
                sys.settrace(None)
                raise OSError(28, "No space left on device")
        return trace

    return trace


def publish_and_be_cut(folder: Path, line: int, how: str) -> int:
    """Publish content b over a in a process that is cut at a line; return its exit code."""
    child = os.fork()
    if child == 0:
        sys.settrace(cut_at(line, how))
        try:
            publish_text(folder, "b", now=START + 2 * DAY, keep=1)
        except (PublishError, OSError):
            os._exit(FAILED)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main(base: Path, how: str) -> None:
    """Cut at each line until there is none left."""
    os.fsync = lambda _: None  # no power is cut here, and disks are slow
    num_old, line = 0, 0
    while True:
        line += 1
        folder = base / str(line)
        publish_text(folder, "0", now=START)
        publish_text(folder, "a", now=START + DAY)
        code = publish_and_be_cut(folder, line, how)
        if code == 0:
            break
        assert code == (CUT if how == "kill" else FAILED), f"line {line}: exit code {code}"
        seen = contents(folder)
        assert seen in ({"a", "link a"}, {"b", "link a"}, {"b", "link b"}), f"line {line}: {seen}"
        num_old += seen == {"a", "link a"}
        publish_text(folder, "b", now=START + 3 * DAY, keep=1)
        assert contents(folder) == {"b", "link b"}, f"line {line}"
        publish_text(folder, "b", now=START + 4 * DAY, keep=1)
        left = names_in(folder), len(names_in(folder / "versions"))
        assert left == ([".lock", "current", "current.json", "versions"], 1), f"line {line}: {left}"
    print(line - 1, num_old)  # noqa: T201


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
