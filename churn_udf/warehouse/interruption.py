"""Ctrl-C for the Python model: dbt cancels SQL, but a model that runs Python goes on.

On SIGINT dbt calls ``interrupt()`` of each thread's cursor and waits for the threads. The cursor
that a Python model is given is a wrapper, so its ``interrupt`` can be listened to.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any

from churn_udf.errors import ScoringError

MESSAGE = (
    "interrupted; the published tables are as before, and the scores made so far are kept in "
    "churn_score_cache: run dbt again to go on from there"
)


class Interruption:
    """Notices, while it is entered, that dbt cancels a model's connection.

    Args:
        session: The cursor that dbt hands to the model. A bare DuckDB connection, which does
            not let its method be replaced, is left alone: then nobody cancels it either.
        log: Where a line goes; of a cancelled model dbt prints no error.
    """

    def __init__(self, session: Any, log: Callable[[str], None]) -> None:
        self._session = session
        self._log = log
        self._asked = threading.Event()

    def __enter__(self) -> Interruption:
        self._interrupt = self._session.interrupt
        with contextlib.suppress(AttributeError):
            self._session.interrupt = self._note
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with contextlib.suppress(AttributeError):
            del self._session.interrupt

    @property
    def is_asked(self) -> bool:
        """Whether dbt cancelled the connection."""
        return self._asked.is_set()

    def check(self) -> None:
        """Stop here if asked to.

        Raises:
            ScoringError: dbt cancelled the connection.
        """
        if self._asked.is_set():
            self._log(MESSAGE)
            raise ScoringError(MESSAGE)

    def _note(self) -> None:
        """Stand in for the cursor's ``interrupt``."""
        self._asked.set()
        self._interrupt()
