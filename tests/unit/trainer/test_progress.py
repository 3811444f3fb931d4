from __future__ import annotations

import io

import pytest

from trainer.progress import Progress, format_seconds


class Clock:
    """Time that only moves when told."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_plain_lines_appear_every_few_seconds_only() -> None:
    clock, stream = Clock(), io.StringIO()
    with Progress(stream, clock=clock).step("fit", total=100, unit="examples") as step:
        for _ in range(10):
            clock.now += 1.0
            step.advance(10, loss="0.5")
    lines = stream.getvalue().splitlines()
    assert lines == [
        "fit: 50/100 examples 10/s 5s left loss 0.5",
        "fit: 100/100 examples 10/s loss 0.5",
        "fit: 100 examples done in 10s loss 0.5",
    ]


def test_terminal_redraws_one_line_and_ends_it() -> None:
    clock, stream = Clock(), Terminal()
    with Progress(stream, clock=clock).step("fit", total=2) as step:
        clock.now += 1.0
        step.advance()
    text = stream.getvalue()
    assert text.count("\n") == 1
    assert "\rfit: 1/2 rows 1/s 1s left" in text
    assert text.endswith("fit: 1 rows done in 1s\n")


def test_failure_leaves_the_terminal_on_a_new_line() -> None:
    stream = Terminal()
    with pytest.raises(KeyError), Progress(stream).step("fit"):
        raise KeyError
    assert stream.getvalue().endswith("\n")


def test_quiet_shows_warnings_alone() -> None:
    stream = Terminal()
    progress = Progress(stream, quiet=True, interval=0.0)
    with progress.step("fit") as step:
        step.advance(5)
    progress.note("hello")
    progress.warn("careful")
    assert stream.getvalue() == "warning: careful\n"


def test_track_counts_what_it_yields() -> None:
    stream = io.StringIO()
    assert list(Progress(stream).track("abc", "read", total=3, unit="files")) == ["a", "b", "c"]
    assert "read: 3 files done" in stream.getvalue()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0s"), (59.4, "59s"), (60, "1m00s"), (3599, "59m59s"), (3600, "1h00m"), (-3, "0s")],
)
def test_spans_are_short(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text
