"""The versioned folder of published tables: whole whatever happens, and tidy."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from datetime import timedelta
from pathlib import Path

import kill_publisher
import pytest
from kill_publisher import DAY, START, contents, names_in, publish_text

from churn_udf.errors import PublishError
from churn_udf.publishing import GRACE, publish, read_published


def versions(folder: Path) -> list[str]:
    return names_in(folder / "versions")


def test_the_pointer_says_what_is_published(tmp_path):
    folder = tmp_path / "new" / "published"
    current, is_new = publish_text(folder, "a")
    assert is_new
    assert current == read_published(folder)
    assert (current.bundle_id, current.cutoff_date) == ("model1", "2026-01-01")
    assert current.written_at == "2026-01-01T06:00:00+00:00"
    assert {name: table.rows for name, table in current.tables.items()} == {
        "scores": 2,
        "current_scores": 1,
    }
    assert contents(folder) == {"a", "link a"}
    assert names_in(folder) == [".lock", "current", "current.json", "versions"]


def test_there_is_nothing_before_the_first(tmp_path):
    assert read_published(tmp_path / "published") is None


def test_the_same_content_keeps_version_and_pointer(tmp_path):
    first, _ = publish_text(tmp_path, "a")
    before = (tmp_path / "current.json").stat()
    again, is_new = publish_text(tmp_path, "a", now=START + DAY)
    assert (again, is_new) == (first, False)
    after = (tmp_path / "current.json").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert versions(tmp_path) == [first.version]


def test_the_umask_says_who_may_read(tmp_path):
    before = os.umask(0o022)
    try:
        current, _ = publish_text(tmp_path, "a")
    finally:
        os.umask(before)
    table = current.tables["scores"].path
    modes = [path.stat().st_mode & 0o777 for path in (tmp_path / "current.json", table)]
    assert modes == [0o644, 0o644]
    assert table.parent.stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("damage", ["missing", "short", "pointer", "format", "link"])
def test_damage_is_cured_by_the_next_run(tmp_path, damage):
    current, _ = publish_text(tmp_path, "a")
    file, pointer, link = (
        current.tables["scores"].path,
        tmp_path / "current.json",
        tmp_path / "current",
    )
    if damage == "missing":
        file.unlink()
    elif damage == "short":
        file.write_text("s")
    elif damage == "pointer":
        pointer.write_text('{"format": 1, "vers')
    elif damage == "format":
        pointer.write_text('{"format": 1, "tables": {"a": {}}}')
    else:
        link.unlink()
    publish_text(tmp_path, "a", now=START + DAY)
    assert contents(tmp_path) == {"a", "link a"}


@pytest.mark.parametrize(
    ("text", "seen"),
    [("{", "Expecting"), ("[]", "format"), ('{"format": 2}', "format is not 1"),
     ('{"format": 1}', "'tables'"), ('{"format": 1, "tables": {}}', "missing")],
    ids=["cut short", "list", "newer", "no tables", "no version"],
)  # fmt: skip
def test_a_damaged_pointer_says_what_to_run(tmp_path, text, seen):
    (tmp_path / "current.json").write_text(text)
    with pytest.raises(PublishError, match=rf"(?s)current\.json.*{seen}.*dbt build"):
        read_published(tmp_path)


@pytest.mark.parametrize(("keep", "kept"), [(1, "d"), (3, "bcd"), (9, "abcd")])
def test_old_versions_go(tmp_path, keep, kept):
    for number, content in enumerate("abcd"):
        publish_text(tmp_path, content, now=START + number * DAY, keep=keep)
    (tmp_path / "versions" / "notes").mkdir()
    publish_text(tmp_path, "d", now=START + 9 * DAY, keep=keep)
    texts = [
        (tmp_path / "versions" / version / "scores.parquet").read_text()
        for version in versions(tmp_path)
        if version != "notes"
    ]
    assert texts == [f"scores: {content}" for content in kept]
    assert contents(tmp_path) == {"d", "link d"}
    assert "notes" in versions(tmp_path), "not ours"


@pytest.mark.parametrize(
    ("passed", "num_kept"),
    [(GRACE - timedelta(seconds=1), 2), (GRACE, 1), (GRACE + timedelta(seconds=1), 1)],
    ids=["before", "at", "after"],
)
def test_a_version_stays_for_the_grace_after_its_successor_came(tmp_path, passed, num_kept):
    publish_text(tmp_path, "a", now=START, keep=1)
    publish_text(tmp_path, "b", now=START + DAY, keep=1)
    publish_text(tmp_path, "b", now=START + DAY + passed, keep=1)
    assert len(versions(tmp_path)) == num_kept


def test_the_grace_counts_from_when_readers_were_sent_elsewhere(tmp_path):
    """A version that a killed writer left under no pointer does not shorten it."""
    old, _ = publish_text(tmp_path, "a", now=START, keep=1)
    orphan = tmp_path / "versions" / "20260101T090000000000Z-0123abcd"
    orphan.mkdir()
    publish_text(tmp_path, "b", now=START + DAY, keep=1)
    publish_text(tmp_path, "b", now=START + DAY + GRACE / 2, keep=1)
    assert old.tables["scores"].path.exists()
    publish_text(tmp_path, "b", now=START + DAY + GRACE, keep=1)
    assert len(versions(tmp_path)) == 1


def test_a_clock_that_was_set_back_costs_no_current_version(tmp_path):
    publish_text(tmp_path, "a", now=START, keep=1)
    for number, content in enumerate("bc"):
        publish_text(tmp_path, content, now=START - DAY + number * GRACE, keep=1)
    assert contents(tmp_path) == {"c", "link c"}


@pytest.mark.parametrize("how", ["kill", "fail"])
def test_cut_at_any_line_readers_see_the_old_or_the_new(tmp_path, how):
    """The script checks each line it cuts, and that the next run ends well and tidies up."""
    command = [sys.executable, kill_publisher.__file__, str(tmp_path), how]
    path = os.pathsep.join(str(Path(__file__).parents[parent]) for parent in (2, 3))
    env = {**os.environ, "PYTHONPATH": path + os.pathsep + os.environ.get("PYTHONPATH", "")}
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    assert (done.returncode, done.stderr) == (0, "")
    num_cut, num_old = map(int, done.stdout.split())
    assert num_cut > 80
    assert 0 < num_old < num_cut


def test_a_writer_that_fails_leaves_the_old_version_and_no_files(tmp_path):
    publish_text(tmp_path, "a")

    def write(directory: Path) -> dict[str, int]:
        (directory / "scores.parquet").write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(PublishError, match=r"No space left.*readers keep.*publish_dir: false"):
        publish(tmp_path, fingerprint="b" * 8, write_tables=write, bundle_id=None, cutoff_date=None)
    assert contents(tmp_path) == {"a", "link a"}
    assert len(names_in(tmp_path / "versions")) == 1


def test_without_links_the_pointer_alone_serves(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    current, _ = publish_text(tmp_path, "a")
    assert read_published(tmp_path) == current
    assert not (tmp_path / "current").exists()


def test_something_else_in_the_place_of_the_link_is_an_error(tmp_path):
    (tmp_path / "current").mkdir(parents=True)
    with pytest.raises(PublishError, match="current"):
        publish_text(tmp_path, "a")


def test_two_writers_take_turns_and_a_reader_always_finds_whole_files(tmp_path):
    publish_text(tmp_path, "start")
    errors: list[BaseException] = []
    is_done = threading.Event()

    def work(writer: int) -> None:
        try:
            for turn in range(15):
                now = START + DAY + timedelta(microseconds=2 * turn + writer)
                publish_text(tmp_path, f"{writer}{turn}", now=now, keep=1)
        except BaseException as error:
            errors.append(error)

    def read() -> None:
        try:
            while not is_done.is_set():
                current = read_published(tmp_path)
                assert current is not None
                texts = {
                    table.path.read_text().removeprefix(f"{name}: ")
                    for name, table in current.tables.items()
                }
                assert len(texts) == 1
        except BaseException as error:
            errors.append(error)

    writers = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    reader = threading.Thread(target=read)
    for thread in (reader, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    is_done.set()
    reader.join()
    assert errors == []
    assert not (tmp_path / "versions" / ".writing").exists()
