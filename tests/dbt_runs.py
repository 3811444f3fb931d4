"""Real dbt runs in processes of their own, cheap enough to kill by the dozen.

    with RunServer(folder, variables) as server:
        run = server.start(database, ["run", "-s", *SCORING])
        run.wait_for("score")             # a point of run_server.install_marks
        run.signal(signal.SIGKILL)
        assert run.wait() == -signal.SIGKILL

``prepare`` makes the workload: a database in which one champion has scored everybody and a
second one has just been promoted, so that a run has all its work before it.
"""

from __future__ import annotations

import dataclasses
import json
import os
import random
import shutil
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from factories import model_settings, tiny_bundle

from churn_udf.bundle_store import Bundle, set_champion
from churn_udf.contracts.bundle import FeatureSpec
from churn_udf.warehouse.torn_blocks import connect_mending

REPOSITORY = Path(__file__).resolve().parents[1]
PROJECT_DIR = REPOSITORY / "dbt_project"
SERVER = Path(__file__).with_name("run_server.py")
SCORING = ("int_inputs_scored", "churn_scores", "churn_scores_current")
SETTINGS = {"observation_days": 60, "eligibility_days": 60, "horizon_days": 10}
DATABASE_NAME = "churn.duckdb"
"""The parsed project names the database after its file, so every copy has this name."""
NUM_USERS = 120
TIMEOUT_SECONDS = 240.0


class Run:
    """One dbt process: what it told, and how it ended."""

    def __init__(self, output: Path) -> None:
        self._output = output
        self._changed = threading.Condition()
        self.pid = 0
        self.code: int | None = None
        self.marks: list[str] = []

    def receive(self, event: Mapping[str, Any]) -> None:
        """Take one event of the server."""
        with self._changed:
            if event["event"] == "started":
                self.pid = event["pid"]
            elif event["event"] == "mark":
                self.marks.append(event["name"])
            else:
                self.code = event["code"]
            self._changed.notify_all()

    def wait_for(self, mark: str, count: int = 1) -> bool:
        """Wait until a point was passed `count` times; false when the run ended before."""
        with self._changed:
            self._wait(lambda: self.marks.count(mark) >= count or self.code is not None)
            return self.marks.count(mark) >= count

    def wait(self, seconds: float = TIMEOUT_SECONDS) -> int:
        """Wait for the end; return the exit code, negative for a signal."""
        with self._changed:
            self._wait(lambda: self.code is not None, seconds)
            assert self.code is not None
            return self.code

    def signal(self, number: int) -> None:
        """Send a signal, unless the run has ended."""
        with self._changed:
            self._wait(lambda: self.pid != 0)
            if self.code is None:
                os.kill(self.pid, number)

    @property
    def kept(self) -> int:
        """Rows whose insert the run saw return."""
        counts = [int(mark.split()[1]) for mark in self.marks if mark.startswith("kept")]
        return max(counts, default=0)

    @property
    def output(self) -> str:
        """What dbt printed."""
        return self._output.read_text(encoding="utf-8", errors="replace")

    def _wait(self, is_done: Any, seconds: float = TIMEOUT_SECONDS) -> None:
        if not self._changed.wait_for(is_done, seconds):
            raise AssertionError(f"nothing for {seconds:.0f} s after {self.marks[-5:]}")


class RunServer:
    """Starts dbt runs; see ``run_server``.

    Args:
        folder: Scratch folder for target, logs and outputs.
        variables: dbt vars of every run.
    """

    def __init__(self, folder: Path, variables: Mapping[str, Any]) -> None:
        self.folder = folder
        self._options = ["--project-dir", str(PROJECT_DIR), "--no-use-colors"]
        self._options += ["--profiles-dir", str(REPOSITORY / "profiles")]
        self._options += ["--target-path", str(folder / "target")]
        self._options += ["--log-path", str(folder / "logs"), "--log-level-file", "none"]
        self._options += ["--vars", json.dumps(dict(variables))]
        self._runs: list[Run] = []
        self._ready = threading.Event()
        log = (folder / "server.log").open("wb")
        self._process = subprocess.Popen(
            [sys.executable, str(SERVER), "parse", *self._options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env={
                **os.environ,
                "PYTHONPATH": str(REPOSITORY),
                "OMP_NUM_THREADS": "1",
                "CHURN_MODELS_DIR": str(folder / "models"),
            },
        )
        log.close()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def __enter__(self) -> RunServer:
        return self

    def __exit__(self, *_: object) -> None:
        for run in self._runs:
            if run.code is None and run.pid:
                run.signal(9)
                run.wait()
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._listener.join(30)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def start(
        self,
        database: Path,
        arguments: Sequence[str] = ("run", "-s", *SCORING),
        *,
        environment: Mapping[str, str] | None = None,
        profiles_dir: Path | None = None,
        **request: Any,
    ) -> Run:
        """Start `dbt` with `arguments` on a database.

        Args:
            database: The DuckDB file.
            arguments: Command and its own options.
            environment: More environment variables.
            profiles_dir: Another folder with a profiles.yml than the repository's.
            request: See ``run_server.install_marks``; ``file_bytes`` lets no file grow beyond
                it from when the run begins to score.
        """
        assert self._ready.wait(TIMEOUT_SECONDS)
        assert self._process.poll() is None, (self.folder / "server.log").read_text()
        number = len(self._runs)
        run = Run(self.folder / f"run_{number}.log")
        self._runs.append(run)
        options = list(self._options)
        if profiles_dir is not None:
            options[options.index("--profiles-dir") + 1] = str(profiles_dir)
        message = {
            "run": number,
            "arguments": [arguments[0], *options, *arguments[1:]],
            "environment": {"CHURN_DUCKDB_PATH": str(database), **(environment or {})},
            "output": str(self.folder / f"run_{number}.log"),
            **request,
        }
        assert self._process.stdin is not None
        self._process.stdin.write((json.dumps(message) + "\n").encode())
        self._process.stdin.flush()
        return run

    def succeed(self, database: Path, *arguments: Any, **options: Any) -> Run:
        """Run dbt to its end; it must succeed."""
        run = self.start(database, *arguments, **options)
        assert run.wait() == 0, run.output
        return run

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            event = json.loads(line)
            if event["event"] == "ready":
                self._ready.set()
            else:
                self._runs[event["run"]].receive(event)
        self._process.wait()
        self._ready.set()


Scores = dict[tuple[Any, ...], float]


@dataclasses.dataclass(frozen=True)
class Tables:
    """The published tables and the cache without times: keys to scores."""

    scored: Scores
    scores: Scores
    current: Scores
    cache: Scores


@dataclasses.dataclass(frozen=True)
class Workload:
    """A warehouse before a run with everything to score.

    Attributes:
        server: Starts runs; its folder has the models directory.
        database: The DuckDB file to copy; a run on it scores with `second`.
        first: The champion that has scored everybody.
        second: The champion.
        before: Tables of `database`.
    """

    server: RunServer
    database: Path
    first: Bundle
    second: Bundle
    before: Tables

    @property
    def models_dir(self) -> Path:
        """Where the bundles are."""
        return self.server.folder / "models"

    def copy_to(self, folder: Path) -> Path:
        """Copy the database into a folder of its own, without what a run left there."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        return Path(shutil.copy(self.database, folder / DATABASE_NAME))


def wal_of(database: Path) -> Path:
    """Return the path of the write-ahead log."""
    return database.with_name(database.name + ".wal")


def prepare(folder: Path) -> Workload:
    """Build the features once, score them with a first champion and promote a second."""
    events = folder / "events.parquet"
    pq.write_table(_events(), events)
    variables = {f"churn__{name}": value for name, value in SETTINGS.items()}
    variables |= {"churn__training_cutoffs": ["2024-02-15"], "churn__events_path": str(events)}
    server = RunServer(folder, variables)
    try:
        first = promote(server, seed=0)
        database = folder / "prepared" / DATABASE_NAME
        database.parent.mkdir()
        server.succeed(database, ("build", "--exclude-resource-type", "test", "unit_test"))
        second = promote(server, seed=1)
        return Workload(server, database, first, second, read_tables(database))
    except BaseException:
        server.__exit__()
        raise


def promote(server: RunServer, *, seed: int) -> Bundle:
    """Make a tiny bundle the champion."""
    models_dir = server.folder / "models"
    bundle = tiny_bundle(models_dir, _feature_specs(), model_settings(**SETTINGS), seed=seed)
    set_champion(models_dir, bundle.bundle_id, reason="test")
    return bundle


def read_tables(database: Path) -> Tables:
    """Read a database that nobody has open.

    It is a copy that is opened, write-ahead log included and as a run opens it, so that the next
    run finds what the last one left and not what this reader recovered or mended.
    """
    copy = database.with_name(database.name + ".copy")
    wal_of(copy).unlink(missing_ok=True)
    shutil.copy(database, copy)
    if wal_of(database).exists():
        shutil.copy(wal_of(database), wal_of(copy))
    with connect_mending(str(copy), {}, log=print) as connection:

        def table(name: str, keys: str) -> Scores:
            rows = connection.execute(f"select {keys}, churn_probability from {name}").fetchall()
            pairs = {row[:-1]: row[-1] for row in rows}
            assert len(pairs) == len(rows), f"{name} has a key twice"
            return pairs

        by_input = "input_hash, bundle_id, risk_tier, is_flagged"
        by_user = f"user_id, cutoff_date, why, {by_input}"
        return Tables(
            table("int_inputs_scored", by_input),
            table("churn_scores", by_user),
            table("churn_scores_current", by_user),
            table("churn_score_cache", by_input),
        )


def are_alike(one: Scores, other: Scores) -> bool:
    """Tell whether keys are the same, and scores within 1e-6."""
    return one.keys() == other.keys() and all(
        abs(score - other[key]) <= 1e-6 for key, score in one.items()
    )


def leaked_tables(database: Path) -> list[tuple[Any, ...]]:
    """Return dbt's tables of a moment that are still there."""
    with duckdb.connect(str(database)) as connection:
        return connection.execute(
            "select table_name from duckdb_tables() where contains(table_name, '__dbt_')"
        ).fetchall()


def profile_with(folder: Path, **settings: Any) -> Path:
    """Write the repository's profile with more DuckDB settings; return its folder."""
    path = REPOSITORY / "profiles" / "profiles.yml"
    profile = yaml.safe_load(path.read_text(encoding="utf-8"))
    profile["churn_scoring"]["outputs"]["dev"]["settings"].update(settings)
    folder.mkdir()
    (folder / "profiles.yml").write_text(yaml.safe_dump(profile), encoding="utf-8")
    return folder


def _feature_specs() -> list[FeatureSpec]:
    """The features as the package's YAML lists them."""
    path = PROJECT_DIR / "models" / "marts" / "_examples__models.yml"
    models = yaml.safe_load(path.read_text(encoding="utf-8"))["models"]
    (examples,) = [model for model in models if model["name"] == "churn_examples"]
    groups = {
        column["name"]: (column.get("config") or {}).get("meta", {}).get("feature_group")
        for column in examples["columns"]
    }
    return [FeatureSpec(name=name, group=group) for name, group in groups.items() if group]


def _events() -> pa.Table:
    """Purchases of users who all differ, and one event that sets the score cutoff."""
    generator = random.Random(4)
    rows = [
        {
            "user_id": f"u{number:03d}",
            "event_type": "purchase",
            "event_ts": f"2024-02-{day:02d} 10:00:00",
            "amount": 10.0 + number,
            "item_id": f"i{day}",
            "category": generator.choice(["dairy", "bakery", "fruit"]),
        }
        for number in range(NUM_USERS)
        for day in sorted(generator.sample(range(1, 29), generator.randint(2, 9)))
    ]
    end = {"user_id": "end", "event_type": "purchase", "event_ts": "2024-03-01 09:00:00"}
    return pa.Table.from_pylist([*rows, end], schema=pa.Table.from_pylist(rows[:1]).schema)
