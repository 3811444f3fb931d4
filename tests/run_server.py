"""A process with dbt and the model's code loaded, which forks one child for each dbt run.

Run as a script by ``dbt_runs.RunServer``. A child is a real dbt process in every respect but
its start: it parses the command line, opens the DuckDB file, ends with dbt's exit code, and can
be killed. Requests come as JSON lines on stdin, events leave as JSON lines on stdout:
``started`` (pid), ``mark`` (the child passed a point named in ``install_marks``), ``ended``
(exit code, negative for a signal).

The parent never opens DuckDB and never runs torch, so that no thread is lost in a fork.
"""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

EVENTS_FD = os.dup(1)


def send(**event: Any) -> None:
    """Write one event; lines this short are atomic on a pipe."""
    os.write(EVENTS_FD, (json.dumps(event) + "\n").encode())


def load(arguments: list[str]) -> Any:
    """Import all that a run needs and parse the project."""
    import torch
    from dbt.cli.main import dbtRunner

    import churn_udf.model.ensemble
    import churn_udf.tokenization
    import churn_udf.warehouse.dbt_model  # noqa: F401

    torch.set_num_threads(1)
    parsed = dbtRunner().invoke(arguments)
    if not parsed.success:
        raise SystemExit(f"dbt parse failed: {parsed.exception}")
    return parsed.result


def install_marks(mark: Callable[[str], None], request: dict[str, Any]) -> None:
    """Tell where the run is, and slow the scorer down as asked.

    Args:
        mark: Called with the name of each point passed.
        request: ``seconds_per_row`` is slept for each row scored; ``chunk_rows`` and
            ``chunk_seconds`` replace the product's first and later sizes of chunks.
    """
    from dbt.adapters.duckdb.environments import Environment
    from dbt.adapters.duckdb.environments.local import DuckDBCursorWrapper

    from churn_udf.scoring import Scorer
    from churn_udf.warehouse import dbt_model
    from churn_udf.warehouse.score_cache import ScoreCache

    dbt_model.FIRST_CHUNK_ROWS = request.get("chunk_rows", dbt_model.FIRST_CHUNK_ROWS)
    dbt_model.CHUNK_SECONDS = request.get("chunk_seconds", dbt_model.CHUNK_SECONDS)

    def before(owner: Any, name: str, point: str) -> None:
        original = getattr(owner, name)

        def marked(*args: Any, **kwargs: Any) -> Any:
            mark(point)
            return original(*args, **kwargs)

        setattr(owner, name, marked)

    connect = Environment.initialize_db.__func__

    def initialize_db(cls: Any, *args: Any, **kwargs: Any) -> Any:
        mark("connect")
        return connect(cls, *args, **kwargs)

    Environment.initialize_db = classmethod(initialize_db)
    before(ScoreCache, "plan", "plan")
    before(ScoreCache, "read_missing", "read")
    before(ScoreCache, "read_current", "result")
    insert, score_or_list = ScoreCache.insert, Scorer.score_or_list
    execute = DuckDBCursorWrapper.execute
    kept = 0

    def slow_score(self: Any, batch: Any, **options: Any) -> Any:
        mark("score")
        time.sleep(request.get("seconds_per_row", 0.0) * batch.num_rows)
        return score_or_list(self, batch, **options)

    def counted_insert(self: Any, scores: Any, **options: Any) -> Any:
        nonlocal kept
        mark("insert")
        result = insert(self, scores, **options)
        kept += scores.num_rows
        mark(f"kept {kept}")
        return result

    def marked_execute(self: Any, sql: str, bindings: Any = None) -> Any:
        text = sql.lower()
        if "rename to" in text and "int_inputs_scored" in text:
            mark("swap")
        elif "churn_scores__dbt_tmp" in text or 'table "churn_scores"' in text:
            mark("publish")
        elif "churn_scores_current__dbt_tmp" in text and "create" in text:
            mark("publish current")
        elif text.strip().startswith("commit"):
            mark("commit")
        return execute(self, sql, bindings)

    ScoreCache.insert, Scorer.score_or_list = counted_insert, slow_score
    DuckDBCursorWrapper.execute = marked_execute


def run(manifest: Any, request: dict[str, Any]) -> int:
    """Be the child: run dbt with its own command line; return its exit code."""
    from dbt.adapters.duckdb.connections import DuckDBConnectionManager
    from dbt.cli.main import cli

    def mark(name: str) -> None:
        if name == "read" and (limit := request.get("file_bytes")):
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        send(run=request["run"], event="mark", name=name)

    # A background shell starts its children with SIGINT ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.update(request["environment"])
    output = os.open(request["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(output, 1)
    os.dup2(output, 2)
    mark("start")
    install_marks(mark, request)
    try:
        cli.main(request["arguments"], obj={"manifest": manifest, "callbacks": []})
        code = 0
    except SystemExit as exit_:
        code = exit_.code if isinstance(exit_.code, int) else 1
    environment = DuckDBConnectionManager._ENV
    if environment is not None and environment.conn is not None:
        mark("checkpoint")
        environment.conn.close()
    mark("end")
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def serve(manifest: Any) -> None:
    """Fork a child per request until stdin closes; reap children as they end."""
    wakeup, wakeup_writer = os.pipe()
    os.set_blocking(wakeup_writer, False)
    signal.set_wakeup_fd(wakeup_writer)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    running: dict[int, int] = {}
    buffered = b""
    send(event="ready")
    while True:
        ready, _, _ = select.select([0, wakeup], [], [])
        if wakeup in ready:
            os.read(wakeup, 512)
            for pid in list(running):
                ended, status = os.waitpid(pid, os.WNOHANG)
                if ended:
                    code = os.waitstatus_to_exitcode(status)
                    send(run=running.pop(pid), event="ended", code=code)
        if 0 in ready:
            data = os.read(0, 65_536)
            if not data:
                return
            *lines, buffered = (buffered + data).split(b"\n")
            for line in lines:
                request = json.loads(line)
                assert threading.active_count() == 1, threading.enumerate()
                pid = os.fork()
                if pid == 0:
                    signal.set_wakeup_fd(-1)
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    os.close(0)
                    os._exit(run(manifest, request))
                running[pid] = request["run"]
                send(run=request["run"], event="started", pid=pid)


if __name__ == "__main__":
    os.dup2(2, 1)  # what dbt prints while parsing is not an event
    serve(load(sys.argv[1:]))
