"""Making items before they are asked for and using them after, each on a thread of its own.

Order is kept, what waits is bounded, and an exception of either side reaches the caller, who
closes both: nothing runs on after that but the one item in the making.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from types import TracebackType
from typing import Generic, TypeVar

Item = TypeVar("Item")


def made_ahead(items: Iterable[Item], depth: int) -> Generator[Item, None, None]:
    """Yield items in their order, made on another thread while the caller uses earlier ones.

    Args:
        items: Iterated, and closed if it is a generator, on the other thread alone.
        depth: Most items that wait, made but not asked for yet, >= 1.

    Raises:
        BaseException: What ``items`` raised, after the items before it.
    """
    free = threading.Semaphore(depth)
    is_closed = threading.Event()
    made: queue.SimpleQueue[tuple[list[Item], BaseException | None]] = queue.SimpleQueue()

    def make() -> None:
        source: Iterator[Item] = iter(items)
        try:
            while free.acquire() and not is_closed.is_set():
                made.put(([next(source)], None))
        except StopIteration:
            made.put(([], None))
        except BaseException as error:
            made.put(([], error))
        finally:
            if isinstance(source, Generator):
                source.close()

    maker = threading.Thread(target=make, name="churn-made-ahead", daemon=True)
    maker.start()
    try:
        while True:
            item, error = made.get()
            if error is not None:
                raise error
            if not item:
                return
            free.release()
            yield item.pop()
    finally:
        is_closed.set()
        free.release()
        maker.join()


class UsedBehind(Generic[Item]):
    """Uses items on another thread, in their order, all that wait at once.

    Args:
        use: Called with one or more items.
        depth: Most items that wait, >= 1; as many again may be in use.

    Leaving the ``with`` block waits until every item is used, after an exception too.
    """

    def __init__(self, use: Callable[[list[Item]], None], depth: int) -> None:
        self._use = use
        self._depth = depth
        self._waiting: list[Item] = []
        self._is_closed = False
        self._error: BaseException | None = None
        self._changed = threading.Condition()
        self._user = threading.Thread(target=self._run, name="churn-used-behind", daemon=True)

    def __enter__(self) -> UsedBehind[Item]:
        """Start the thread."""
        self._user.start()
        return self

    def put(self, item: Item) -> None:
        """Hand over an item; waits while ``depth`` others wait.

        Raises:
            BaseException: What using an earlier item raised.
        """
        with self._changed:
            self._changed.wait_for(lambda: len(self._waiting) < self._depth or self._error)
            if self._error is not None:
                raise self._error
            self._waiting.append(item)
            self._changed.notify_all()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Wait for the rest; an error of its use is raised unless another one is on its way."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        self._user.join()
        if self._error is not None and error is None:
            raise self._error

    def _run(self) -> None:
        """Use what waits until the block is left."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._is_closed)
                group, self._waiting = self._waiting, []
                self._changed.notify_all()
            if not group:
                return
            try:
                self._use(group)
            except BaseException as error:
                with self._changed:
                    self._error = error
                    self._changed.notify_all()
                return
