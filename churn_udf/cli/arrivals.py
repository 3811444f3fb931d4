"""Bytes and rows as they arrive: an input that can be told to stop, and a queue with a bound."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import fcntl
import os
import select
import stat
import struct
import termios
import threading
import time
from collections.abc import Callable
from typing import Any

READ_BYTES = 1 << 16


@dataclasses.dataclass(frozen=True)
class Request:
    """Rows that arrived together."""

    content: Any
    """What the door made of them."""
    num_rows: int
    arrived: float
    """When, by ``time.monotonic``."""


class Arrivals:
    """A file descriptor to read until its end, or until ``stop``: then what has arrived is the end.

    Args:
        descriptor: A pipe, socket, terminal or file.

    Attributes:
        read_at: When bytes were read last, by ``time.monotonic``.
    """

    closed = False

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._woken, self._wake = os.pipe()
        os.set_blocking(self._wake, False)
        self._left: int | None = None
        self.read_at = time.monotonic()

    @property
    def is_stopped(self) -> bool:
        """Whether the end is one that ``stop`` made, maybe in the middle of a row."""
        return self._left is not None

    def stop(self) -> None:
        """End the input; may be called from a signal handler and from any thread."""
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake, b".")

    def read_some(self, size: int = READ_BYTES) -> bytes:
        """Return the next 1 to ``size`` bytes, waiting for them; none at the end."""
        if self._left is None:
            ready, _, _ = select.select([self._descriptor, self._woken], [], [])
            if self._woken in ready:
                self._left = self._num_waiting()
        if self._left is not None:
            size = min(size, self._left)
        data = os.read(self._descriptor, size) if size else b""
        if self._left is not None:
            self._left -= len(data)
        self.read_at = time.monotonic()
        return data

    def read(self, size: int) -> bytes:
        """Return ``size`` bytes, fewer only at the end."""
        parts: list[bytes] = []
        missing = size
        while missing and (data := self.read_some(missing)):
            parts.append(data)
            missing -= len(data)
        return b"".join(parts)

    def _num_waiting(self) -> int:
        """Return how many bytes were sent and not read yet; the rest of a file does not count."""
        if stat.S_ISREG(os.fstat(self._descriptor).st_mode):
            return 0
        try:
            answer = fcntl.ioctl(self._descriptor, termios.FIONREAD, struct.pack("i", 0))
        except OSError:
            return 0
        return int(struct.unpack("i", answer)[0])


class RequestQueue:
    """Requests in order, taken as micro-batches; who puts waits while it is full.

    Args:
        max_rows: Rows of a micro-batch, >= 1.
        max_wait: Seconds that a row waits for others, >= 0.
        capacity: Rows that may wait.
        clock: The clock of ``Request.arrived``.
    """

    def __init__(
        self,
        *,
        max_rows: int,
        max_wait: float,
        capacity: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_rows = max_rows
        self._max_wait = max_wait
        self._capacity = capacity
        self._clock = clock
        self._requests: collections.deque[Request] = collections.deque()
        self._num_rows = 0
        self._is_closed = False
        self._is_abandoned = False
        self._changed = threading.Condition()

    def put(self, request: Request) -> None:
        """Add a request of at most ``max_rows`` rows, waiting for room."""
        with self._changed:
            while self._num_rows >= self._capacity and not self._is_abandoned:
                self._changed.wait()
            if not self._is_abandoned:
                self._requests.append(request)
                self._num_rows += request.num_rows
                self._changed.notify_all()

    def take(self) -> list[Request]:
        """Return what has arrived: ``max_rows``, or what came within ``max_wait`` of the first.

        A row that has waited longer already waits no more. Empty when closed and all is taken.
        """
        with self._changed:
            while not self._requests and not self._is_closed:
                self._changed.wait()
            while self._requests and self._num_rows < self._max_rows and not self._is_closed:
                left = self._requests[0].arrived + self._max_wait - self._clock()
                if left <= 0 or not self._changed.wait(left):
                    break
            taken: list[Request] = []
            rows = 0
            while self._requests and rows + self._requests[0].num_rows <= self._max_rows:
                taken.append(self._requests.popleft())
                rows += taken[-1].num_rows
            self._num_rows -= rows
            self._changed.notify_all()
            return taken

    def close(self) -> None:
        """Say that no more will be put."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def abandon(self) -> None:
        """Drop what waits and what is put from now on."""
        with self._changed:
            self._is_abandoned = self._is_closed = True
            self._requests.clear()
            self._num_rows = 0
            self._changed.notify_all()
