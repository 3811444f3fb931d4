from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from churn_udf.cli.arrivals import Arrivals, Request, RequestQueue


@pytest.fixture
def pipe() -> Iterator[tuple[Arrivals, int]]:
    reading, writing = os.pipe()
    yield Arrivals(reading), writing
    os.close(reading)


def test_bytes_come_as_they_arrive_until_the_end(pipe: tuple[Arrivals, int]) -> None:
    arrivals, writing = pipe
    os.write(writing, b"abc")
    assert arrivals.read_some() == b"abc"
    os.write(writing, b"defg")
    assert arrivals.read(3) == b"def"
    os.close(writing)
    assert arrivals.read(3) == b"g"
    assert arrivals.read_some() == b""
    assert not arrivals.is_stopped


def test_stop_makes_an_end_after_what_has_arrived(pipe: tuple[Arrivals, int]) -> None:
    arrivals, writing = pipe
    os.write(writing, b"before")
    arrivals.stop()
    assert arrivals.read_some(2) == b"be"
    os.write(writing, b"after")
    assert arrivals.read(100) == b"fore"
    assert arrivals.is_stopped
    assert arrivals.read_some() == b""
    os.close(writing)


def test_stop_wakes_who_waits(pipe: tuple[Arrivals, int]) -> None:
    arrivals, writing = pipe
    timer = threading.Timer(0.05, arrivals.stop)
    timer.start()
    assert arrivals.read_some() == b""
    timer.join()
    os.close(writing)


def test_stop_leaves_the_rest_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "rows").write_bytes(b"abc" * 100)
    with (tmp_path / "rows").open("rb") as stream:
        arrivals = Arrivals(stream.fileno())
        assert arrivals.read(3) == b"abc"
        arrivals.stop()
        assert arrivals.read_some() == b""


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def queue(max_wait: float = 0.0, capacity: int = 1_000) -> RequestQueue:
    return RequestQueue(max_rows=4, max_wait=max_wait, capacity=capacity, clock=Clock())


def numbers(requests: list[Request]) -> list[int]:
    return [request.content for request in requests]


def test_takes_what_has_arrived_up_to_the_most_rows() -> None:
    waiting = queue()
    for number in range(6):
        waiting.put(Request(number, 1, 100.0))
    assert numbers(waiting.take()) == [0, 1, 2, 3]
    assert numbers(waiting.take()) == [4, 5]


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [([3, 1, 1], [[0, 1], [2]]), ([3, 2, 2], [[0], [1, 2]]), ([4, 4], [[0], [1]])],
)
def test_requests_are_not_cut(sizes: list[int], expected: list[list[int]]) -> None:
    waiting = queue()
    for number, rows in enumerate(sizes):
        waiting.put(Request(number, rows, 100.0))
    assert [numbers(waiting.take()) for _ in expected] == expected


def test_a_full_batch_and_one_that_has_waited_do_not_wait() -> None:
    waiting = queue(max_wait=3_600.0)
    for number in range(4):
        waiting.put(Request(number, 1, 100.0))
    assert len(waiting.take()) == 4
    waiting.put(Request(4, 1, 100.0 - 3_600.0))
    assert len(waiting.take()) == 1


def test_a_row_waits_for_others() -> None:
    waiting = RequestQueue(max_rows=2, max_wait=3_600.0, capacity=10)
    waiting.put(Request(0, 1, time.monotonic()))
    timer = threading.Timer(0.05, waiting.put, [Request(1, 1, 0.0)])
    timer.start()
    assert numbers(waiting.take()) == [0, 1]
    timer.join()


def test_closing_ends_the_wait_and_the_rest_is_taken() -> None:
    waiting = queue(max_wait=3_600.0)
    waiting.put(Request(0, 1, 100.0))
    waiting.close()
    assert numbers(waiting.take()) == [0]
    assert waiting.take() == []


def test_who_puts_waits_while_it_is_full() -> None:
    waiting = queue(capacity=4)
    put: list[int] = []

    def producer() -> None:
        for number in range(12):
            waiting.put(Request(number, 1, 100.0))
            put.append(number)

    thread = threading.Thread(target=producer)
    thread.start()
    taken: list[int] = []
    while len(taken) < 12:
        taken += numbers(waiting.take())
        assert len(put) <= len(taken) + 5  # four that wait and the one that was just let in
    thread.join()
    assert taken == list(range(12))


def test_abandoning_frees_who_puts_and_drops_the_rest() -> None:
    waiting = queue(capacity=1)
    waiting.put(Request(0, 1, 100.0))
    thread = threading.Thread(target=waiting.put, args=[Request(1, 1, 100.0)])
    thread.start()
    waiting.abandon()
    thread.join(timeout=10)
    assert not thread.is_alive()
    assert waiting.take() == []
