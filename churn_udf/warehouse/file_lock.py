"""Waits for a DuckDB file that another process holds, and says so.

DuckDB lets one process open a file for writing, and no reader beside it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from churn_udf.errors import ChurnError

POLL_SECONDS = 0.5

Connect = Callable[[str, Mapping[str, Any]], Any]


class DatabaseLockedError(ChurnError):
    """Another process has the DuckDB file open."""


def wait_for_file(
    path: str,
    config: Mapping[str, Any],
    *,
    seconds: float,
    log: Callable[[str], None],
    connect: Connect,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Return as soon as this process can open the file, which it does not keep open.

    Only locks are looked for; whatever else DuckDB finds is left to who opens it.

    Args:
        path: The database; anything but an existing file (``:memory:``, ``md:...``) is free.
        config: Options of the connection to come.
        seconds: How long to wait, >= 0.
        log: Told once that waiting has begun.
        connect: Opens a database.
        clock: Seconds, monotonic.
        sleep: Waits for seconds.

    Raises:
        DatabaseLockedError: The file was still held; names file, holder and what to do.
    """
    if not Path(path).is_file():
        return
    began = clock()
    is_told = False
    while (holder := _holder(path, config, connect)) is not None:
        waited = clock() - began
        if waited >= seconds:
            raise DatabaseLockedError(
                f"cannot open {path}: {holder} has it open, for more than the {seconds:g} s that "
                "were waited. DuckDB lets one process write a file, and no reader beside it. "
                "Let that process end or stop it, close what reads the file (a shell, a notebook, "
                "a BI tool), then run again; lock_wait_seconds of the plugin (profiles.yml, "
                "CHURN_LOCK_WAIT_SECONDS) says how long to wait"
            )
        if not is_told:
            log(f"{path} is held by {holder}; waiting up to {seconds:g} s for it")
            is_told = True
        sleep(min(POLL_SECONDS, seconds - waited))


def is_lock_error(error: Exception) -> bool:
    """Tell whether DuckDB says that another process holds the file."""
    return re.search(r"\block\b", str(error), re.IGNORECASE) is not None


def _holder(path: str, config: Mapping[str, Any], connect: Connect) -> str | None:
    """Return who holds the file, None when nobody does."""
    import duckdb

    try:
        connect(path, config).close()
    except duckdb.IOException as error:
        if not is_lock_error(error):
            return None
        held_by = re.search(r"held in (.+?) \(PID (\d+)\)", str(error))
        if held_by is None:
            return "another process"
        return f"process {held_by.group(2)} ({Path(held_by.group(1)).name})"
    except duckdb.Error:
        return None
    return None
