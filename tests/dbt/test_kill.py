"""kill -9 at random moments of real runs: nothing is half done, and little is lost.

`pytest -s tests/dbt/test_kill.py` prints the log of kills that docs/safety.md shows.
"""

from __future__ import annotations

import dataclasses
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from dbt_runs import NUM_USERS, Run, Tables, Workload, are_alike, leaked_tables, profile_with
from dbt_runs import read_tables as read

SEED = 20261124
SLOW = {"seconds_per_row": 0.01, "chunk_rows": 4, "chunk_seconds": 0.05}
"""A row takes 10 ms, and a chunk of some rows about 50 ms instead of 3 s."""
POINTS = (
    *(("start", 1), ("connect", 1), ("plan", 1), ("read", 1), ("result", 1), ("swap", 1)),
    *(("score", 1), ("insert", 1), ("score", 3), ("insert", 3), ("score", 6), ("insert", 6)),
    *(("publish", 1), ("publish current", 1), ("commit", 3), ("commit", 4), ("commit", 5)),
    ("checkpoint", 1),
)
"""Where a run is killed once each, as short phases would hardly be met by chance: soon after
it passed a point so many times. Commits 3 to 5 are those of the three models."""
SCORING_POINTS = ("read", "score", "insert")
LAPSE_SECONDS = 0.02
CHECKPOINT_SECONDS = 0.002
UNIFORM_KILLS = 4
"""Kills of each lineage at a moment drawn from the whole life of a run."""
MAX_ATTEMPTS = 4
"""A run can end before the moment comes; then a fresh one is tried."""


@dataclasses.dataclass(frozen=True)
class Moment:
    """When to kill: `delay` seconds after the `count`-th time of a point, or after the start."""

    point: str | None
    count: int
    delay: float


class Lineage:
    """One warehouse through kill after kill, until its work is done; then a fresh one.

    Args:
        workload: What runs.
        folder: For the database.
        after: The tables of an undisturbed run.
        profiles_dir: Settings of DuckDB.
        name: For the log.
    """

    def __init__(
        self, workload: Workload, folder: Path, after: Tables, profiles_dir: Path, name: str
    ) -> None:
        self.workload, self.after = workload, after
        self.folder, self.profiles_dir, self.name = folder, profiles_dir, name
        self.log: list[str] = []
        self.phases: list[str] = []
        self.begin_anew()

    def begin_anew(self) -> None:
        """Take a fresh copy."""
        self.database = self.workload.copy_to(self.folder)
        self.tables = self.workload.before

    def start(self) -> Run:
        return self.workload.server.start(self.database, profiles_dir=self.profiles_dir, **SLOW)

    def kill(self, moment: Moment) -> bool:
        """Start a run and kill it; false when it had ended before the moment came."""
        if moment.point in SCORING_POINTS and len(self.tables.cache) == len(self.after.cache):
            self.begin_anew()
        began = time.monotonic()
        run = self.start()
        run.wait_for(moment.point or "start", moment.count)
        time.sleep(moment.delay)
        run.signal(signal.SIGKILL)
        code, seconds = run.wait(), time.monotonic() - began
        if code != -signal.SIGKILL:
            assert code == 0, run.output
            self.must_be_done()
            self.begin_anew()
            return False
        self.must_be_whole(run)
        phase = run.marks[-1] if run.marks else "before start"
        if phase.startswith("kept"):
            phase = "insert"
        self.phases.append(phase)
        published = [
            "new" if are_alike(getattr(self.tables, name), getattr(self.after, name)) else "old"
            for name in ("scored", "scores", "current")
        ]
        self.log.append(
            f"{self.name}  {seconds:5.2f} s  {phase:16} {run.kept:4d} "
            f"{len(self.tables.cache) - len(self.workload.before.cache):4d} of {NUM_USERS}  "
            + " ".join(published)
        )
        return True

    def must_be_whole(self, run: Run) -> None:
        """Check what a killed run left behind: all of it old or all of it new, no work lost."""
        found, before, after = read(self.database), self.workload.before, self.after
        for name in ("scored", "scores", "current"):
            now = getattr(found, name)
            if are_alike(getattr(self.tables, name), getattr(after, name)):
                assert are_alike(now, getattr(after, name)), f"{name} went back"
            else:
                is_whole = any(are_alike(now, getattr(side, name)) for side in (before, after))
                assert is_whole, f"{name} is half done"
        assert self.tables.cache.items() <= found.cache.items(), "work of an earlier run is lost"
        assert len(found.cache) >= len(self.tables.cache) + run.kept, "work of this run is lost"
        assert found.cache.keys() <= after.cache.keys()
        self.tables = found

    def must_be_done(self) -> None:
        """Check that a run that ended left what an undisturbed one leaves."""
        found = read(self.database)
        for field in dataclasses.fields(Tables):
            assert are_alike(getattr(found, field.name), getattr(self.after, field.name)), field
        assert leaked_tables(self.database) == []

    def go_on_to_the_end(self) -> None:
        """Let a last run complete."""
        run = self.start()
        assert run.wait() == 0, run.output
        self.must_be_done()
        assert run.kept == len(self.after.cache) - len(self.tables.cache), "work was done twice"


def moments(
    generator: random.Random, points: Sequence[tuple[str, int]], seconds: float
) -> list[Moment]:
    """Return moments in random order: each point once, and some at any time of a run."""
    drawn = [Moment(None, 1, generator.uniform(0, seconds)) for _ in range(UNIFORM_KILLS)]
    for point, count in points:
        lapse = CHECKPOINT_SECONDS if point == "checkpoint" else LAPSE_SECONDS
        drawn.append(Moment(point, count, generator.uniform(0, lapse)))
    generator.shuffle(drawn)
    return drawn


@pytest.mark.slow
def test_runs_killed_at_random_moments_end_with_the_table_of_an_undisturbed_run(
    workload: Workload, tmp_path: Path
) -> None:
    began = time.monotonic()
    undisturbed = workload.copy_to(tmp_path / "undisturbed")
    workload.server.succeed(undisturbed, **SLOW)
    seconds = time.monotonic() - began
    after = read(undisturbed)
    assert len(after.current) == len(workload.before.current) == NUM_USERS
    assert len(after.scores) == len(after.cache) == 2 * NUM_USERS

    lineages = []
    for number, points in enumerate((POINTS[::2], POINTS[1::2])):
        # One with DuckDB's own rhythm of checkpoints, one with a checkpoint at nearly every commit.
        settings = {"wal_autocheckpoint": "1KB"} if number else {}
        profiles_dir = profile_with(tmp_path / f"profile_{number}", **settings)
        folder = tmp_path / f"lineage_{number}"
        lineage = Lineage(workload, folder, after, profiles_dir, f"lineage {number}")
        lineages.append((lineage, points, random.Random(SEED + number)))

    def disturb(
        lineage: Lineage, points: Sequence[tuple[str, int]], generator: random.Random
    ) -> None:
        for moment in moments(generator, points, seconds):
            for _ in range(MAX_ATTEMPTS):
                if lineage.kill(moment):
                    break
                if moment.point is None:
                    moment = dataclasses.replace(moment, delay=generator.uniform(0, seconds))
        lineage.go_on_to_the_end()

    with ThreadPoolExecutor(2) as pool:
        for disturbed in [pool.submit(disturb, *arguments) for arguments in lineages]:
            disturbed.result()

    phases = Counter(phase for lineage, *_ in lineages for phase in lineage.phases)
    log = [
        f"\nseed {SEED}, an undisturbed run takes {seconds:.1f} s",
        "killed after, last point passed, rows it kept, rows kept in all, the three tables",
        *(line for lineage, *_ in lineages for line in lineage.log),
        f"{phases.total()} kills: {dict(phases.most_common())}\n",
    ]
    sys.stdout.write("\n".join(log))
    assert phases.total() >= 20
    assert phases["score"] + phases["insert"] >= 6
    assert len(phases) >= 6
