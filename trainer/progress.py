"""Progress of long steps on standard error: name, count, rate and time left.

On a terminal one line is redrawn; elsewhere (CI, schedulers) a plain line appears every few
seconds, so that a log shows life without growing.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TextIO, TypeVar

T = TypeVar("T")

TERMINAL_INTERVAL = 0.2
PLAIN_INTERVAL = 5.0


def format_seconds(seconds: float) -> str:
    """Return a span as people say it: ``8s``, ``3m05s``, ``1h02m``."""
    whole = round(max(0.0, seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


class Step:
    """One long step; made by ``Progress.step``."""

    def __init__(self, progress: Progress, name: str, total: int | None, unit: str) -> None:
        self.name = name
        self.total = total
        self.unit = unit
        self.count = 0
        self.facts: dict[str, str] = {}
        self._progress = progress
        self._started_at = progress.clock()

    @property
    def seconds(self) -> float:
        """Seconds since the step began."""
        return self._progress.clock() - self._started_at

    def advance(self, count: int = 1, **facts: object) -> None:
        """Add to the count and show it when due.

        Args:
            count: How many units were done since the last call.
            facts: Short values to show beside the count, e.g. ``loss="0.512"``.
        """
        self.count += count
        self.facts.update({name: str(value) for name, value in facts.items()})
        self._progress.refresh(self)

    def describe(self) -> str:
        """Return the line to show: name, count, rate, time left and facts."""
        parts = [f"{self.name}:"]
        seconds = self.seconds
        if self.total:
            parts.append(f"{self.count:,}/{self.total:,} {self.unit}")
        elif self.count:
            parts.append(f"{self.count:,} {self.unit}")
        if self.count and seconds > 0.5:
            rate = self.count / seconds
            parts.append(f"{rate:,.0f}/s" if rate >= 10 else f"{rate:.2g}/s")
            if self.total and self.count < self.total:
                parts.append(f"{format_seconds((self.total - self.count) / rate)} left")
        else:
            parts.append(format_seconds(seconds))
        parts.extend(f"{name} {value}" for name, value in self.facts.items())
        return " ".join(parts)


class Progress:
    """Reports steps, notes and warnings to one text stream.

    Args:
        stream: Where to write; standard error by default.
        quiet: Write nothing but warnings.
        clock: Seconds that never go back; replaced in tests.
        interval: Seconds between two lines of one step; by default 0.2 on a terminal, else 5.
    """

    def __init__(
        self,
        stream: TextIO | None = None,
        *,
        quiet: bool = False,
        clock: Callable[[], float] = time.monotonic,
        interval: float | None = None,
    ) -> None:
        self.clock = clock
        self._stream = stream if stream is not None else sys.stderr
        self._quiet = quiet
        self._is_terminal = bool(getattr(self._stream, "isatty", lambda: False)())
        default = TERMINAL_INTERVAL if self._is_terminal else PLAIN_INTERVAL
        self._interval = default if interval is None else interval
        self._shown_at = clock()
        self._line_length = 0

    @contextlib.contextmanager
    def step(self, name: str, *, total: int | None = None, unit: str = "rows") -> Iterator[Step]:
        """Report one long step from entry to exit.

        Args:
            name: What is being done, e.g. ``fit``.
            total: How many units there are, when known.
            unit: What is counted.
        """
        step = Step(self, name, total, unit)
        self._shown_at = self.clock()
        if self._is_terminal:
            self._redraw(step.describe())
        try:
            yield step
        except BaseException:
            self._end_line()
            raise
        if not self._quiet:
            done = f"{step.count:,} {step.unit} " if step.count else ""
            facts = " ".join(f"{key} {value}" for key, value in step.facts.items())
            self._write(f"{name}: {done}done in {format_seconds(step.seconds)} {facts}".rstrip())

    def track(self, items: Iterable[T], name: str, *, total: int, unit: str) -> Iterator[T]:
        """Yield the items, one unit of progress each."""
        with self.step(name, total=total, unit=unit) as step:
            for item in items:
                yield item
                step.advance()

    def refresh(self, step: Step) -> None:
        """Show a step if the interval since the last line has passed."""
        now = self.clock()
        if self._quiet or now - self._shown_at < self._interval:
            return
        self._shown_at = now
        if self._is_terminal:
            self._redraw(step.describe())
        else:
            self._write(step.describe())

    def note(self, message: str) -> None:
        """Write one line of information."""
        if not self._quiet:
            self._write(message)

    def warn(self, message: str) -> None:
        """Write one warning; shown even when quiet."""
        self._write(f"warning: {message}")

    def _redraw(self, text: str) -> None:
        """Overwrite the current terminal line."""
        if self._quiet:
            return
        self._stream.write("\r" + text[:160].ljust(self._line_length))
        self._stream.flush()
        self._line_length = min(len(text), 160)

    def _end_line(self) -> None:
        """Leave the redrawn line standing, so that what follows starts on a new one."""
        if self._line_length:
            self._stream.write("\n")
            self._stream.flush()
            self._line_length = 0

    def _write(self, text: str) -> None:
        """Write one whole line in place of the redrawn one."""
        if self._line_length:
            self._stream.write("\r" + " " * self._line_length + "\r")
            self._line_length = 0
        self._stream.write(text + "\n")
        self._stream.flush()
