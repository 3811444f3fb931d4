"""Items made ahead and used behind: order, bounds, errors of either side, and nothing left over."""

import threading

import pytest

from churn_udf.overlap import UsedBehind, made_ahead

SOON = 30.0
"""Seconds within which another thread surely gets its turn."""


@pytest.fixture(autouse=True)
def _no_thread_is_left():
    before = threading.active_count()
    yield
    assert threading.active_count() == before


def test_items_come_in_order_from_one_other_thread():
    threads = set()

    def items():
        for number in range(50):
            threads.add(threading.current_thread())
            yield number

    assert list(made_ahead(items(), 3)) == list(range(50))
    assert len(threads) == 1
    assert threading.current_thread() not in threads


def test_no_more_is_made_ahead_than_allowed():
    made, is_full, is_too_full = [], threading.Event(), threading.Event()

    def items():
        for number in range(10):
            made.append(number)
            {2: is_full, 3: is_too_full}.get(number, threading.Event()).set()
            yield number

    stream = made_ahead(items(), 2)
    assert next(stream) == 0
    assert is_full.wait(SOON)
    assert not is_too_full.wait(0.05)
    assert made == [0, 1, 2]
    assert list(stream) == list(range(1, 10))


def test_the_next_item_is_made_while_one_is_used():
    is_made = threading.Event()

    def items():
        yield 0
        is_made.set()
        yield 1

    stream = made_ahead(items(), 2)
    next(stream)
    assert is_made.wait(SOON)
    assert list(stream) == [1]


def test_an_error_comes_after_the_items_before_it():
    def items():
        yield 1
        raise ValueError("row 2")

    stream = made_ahead(items(), 5)
    assert next(stream) == 1
    with pytest.raises(ValueError, match="row 2"):
        next(stream)


def test_closing_closes_the_source_on_its_own_thread():
    closed_by = []

    def items():
        try:
            yield from range(1_000)
        finally:
            closed_by.append(threading.current_thread().name)

    stream = made_ahead(items(), 2)
    next(stream)
    stream.close()
    assert closed_by == ["churn-made-ahead"]


def test_everything_is_used_in_order_and_what_waits_at_once():
    groups, is_started, is_free = [], threading.Event(), threading.Event()

    def use(items):
        is_started.set()
        assert is_free.wait(SOON)
        groups.append(items)

    with UsedBehind(use, 8) as writer:
        writer.put(0)
        assert is_started.wait(SOON)
        for number in range(1, 9):
            writer.put(number)
        is_free.set()
    assert groups == [[0], list(range(1, 9))]


def test_put_waits_while_as_many_as_allowed_wait():
    groups, is_started, is_free = [], threading.Event(), threading.Event()

    def use(items):
        is_started.set()
        assert is_free.wait(SOON)
        groups.append(items)

    with UsedBehind(use, 1) as writer:
        writer.put(0)
        assert is_started.wait(SOON)
        writer.put(1)
        late = threading.Thread(target=writer.put, args=[2])
        late.start()
        late.join(0.05)
        assert late.is_alive()
        is_free.set()
        late.join(SOON)
    assert groups == [[0], [1], [2]]


def test_an_error_of_use_is_raised_at_a_later_put():
    def use(items):
        raise OSError("disk full")

    def put_for_ever():
        with UsedBehind(use, 1) as writer:
            while True:
                writer.put(0)

    with pytest.raises(OSError, match="disk full"):
        put_for_ever()


def test_an_error_of_the_last_use_is_raised_at_the_end():
    def use(items):
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"), UsedBehind(use, 1) as writer:
        writer.put(0)


def test_what_was_handed_over_is_used_when_the_caller_fails():
    used = []

    def interrupt():
        with UsedBehind(used.extend, 4) as writer:
            writer.put(1)
            writer.put(2)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupt()
    assert used == [1, 2]
