"""A service: one thread reads, one scores micro-batches, one writes; another watches the champion.

Answers keep the order of the rows, every row gets one, and memory is bounded: who sends faster
than is scored waits.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import BinaryIO

import numpy as np
import pyarrow as pa

from churn_udf.bundle_store import Bundle, bundle_directory, open_bundle, read_champion
from churn_udf.cli.arrivals import Arrivals, Request, RequestQueue
from churn_udf.cli.doors import Door
from churn_udf.cli.rows import ScoredRows, score_rows
from churn_udf.cli.statistics import Statistics
from churn_udf.contracts.scores import input_schema
from churn_udf.models_location import ModelsDir
from churn_udf.scoring import Scorer

WAITING_BATCHES = 4
"""Micro-batches that may wait to be scored, and to be written."""
POLL_SECONDS = 1.0
Log = Callable[[str], None]


def warmed(scorer: Scorer) -> Scorer:
    """Score one row, so that the first customer does not wait for what loads at first use."""
    names = scorer.bundle.feature_names
    row = {"input_hash": "0", "behavior_text": "", "review_text_recent": ""}
    scorer.score_batch(pa.RecordBatch.from_pylist([row], schema=input_schema(names)))
    return scorer


class CurrentScorer:
    """The champion's scorer, replaced when another bundle is promoted.

    Args:
        scorer: What scores first.
        models_dir: Whose champion to follow; None to stay with ``scorer``.
        load_scorer: How a bundle becomes a scorer.
        log: Where a line goes.
    """

    def __init__(
        self,
        scorer: Scorer,
        models_dir: ModelsDir | None,
        load_scorer: Callable[[Bundle], Scorer],
        log: Log,
    ) -> None:
        self.scorer = scorer
        self._models_dir = models_dir
        self._load_scorer = load_scorer
        self._log = log
        self._refused = ""

    def watch(self, stopped: threading.Event) -> None:
        """Look for a new champion every second until stopped."""
        while self._models_dir is not None and not stopped.wait(POLL_SECONDS):
            self.refresh(self._models_dir)

    def refresh(self, models_dir: ModelsDir) -> None:
        """Load the champion if it is another one; if that fails, say so once and go on as before.

        It has to be for the same settings and features, since the rows that come are.
        """
        present = self.scorer.bundle
        bundle_id = "of an unreadable registry"
        try:
            champion = read_champion(models_dir)
            if champion is None or champion.bundle_id == present.bundle_id:
                self._refused = ""
                return
            bundle_id = champion.bundle_id
            if bundle_id == self._refused:
                return
            bundle = open_bundle(
                bundle_directory(models_dir, bundle_id),
                settings=present.manifest.settings,
                feature_names=present.feature_names,
            )
            self.scorer = warmed(self._load_scorer(bundle))
        except Exception as error:
            # Whatever is wrong with the new one, the present one still scores.
            if bundle_id != self._refused:
                self._log(
                    f"champion {bundle_id} cannot be used ({error}); going on with "
                    f"{present.bundle_id}"
                )
            self._refused = bundle_id
            return
        self._log(f"champion {bundle_id} replaces {present.bundle_id}")


class Service:
    """Answers rows until its input ends or is stopped.

    Args:
        current: What scores.
        door: How rows are read and answers written.
        max_rows: Most rows of a micro-batch.
        max_wait: Seconds a row waits for others.
        stats_every: Seconds from one line of statistics to the next.
        log: Where they go.
    """

    def __init__(
        self,
        current: CurrentScorer,
        door: Door,
        *,
        max_rows: int,
        max_wait: float,
        stats_every: float,
        log: Log,
    ) -> None:
        self._current = current
        self._door = door
        self._max_rows = max_rows
        self._stats_every = stats_every
        self._log = log
        self._requests = RequestQueue(
            max_rows=max_rows, max_wait=max_wait, capacity=WAITING_BATCHES * max_rows
        )
        self._answers: queue.Queue[tuple[list[Request], ScoredRows, str] | None] = queue.Queue(
            WAITING_BATCHES
        )
        self._failures: list[BaseException] = []
        self.statistics = Statistics()

    def run(self, arrivals: Arrivals, stream: BinaryIO) -> None:
        """Serve; returns when everything that arrived is answered.

        Raises:
            BrokenPipeError: Nobody reads the answers any more.
            InputError: The input is not what the door reads; what came before is answered.
        """
        stopped = threading.Event()
        threads = [
            threading.Thread(target=self._read, args=(arrivals,), name="reader", daemon=True),
            threading.Thread(target=self._score, args=(arrivals,), name="scorer", daemon=True),
            threading.Thread(
                target=self._current.watch, args=(stopped,), name="watcher", daemon=True
            ),
        ]
        for thread in threads:
            thread.start()
        try:
            self._write_answers(stream)
        except OSError:
            arrivals.stop()
            self._requests.abandon()
            while self._answers.get() is not None:
                pass
            raise
        finally:
            stopped.set()
        for thread in threads:
            thread.join()
        if self._failures:
            raise self._failures[0]
        self._door.finish(stream)
        stream.flush()

    def _read(self, arrivals: Arrivals) -> None:
        try:
            for request in self._door.requests(arrivals, self._max_rows):
                self._requests.put(request)
        except BaseException as error:
            self._failures.append(error)
        finally:
            self._requests.close()

    def _score(self, arrivals: Arrivals) -> None:
        try:
            while requests := self._requests.take():
                scorer = self._current.scorer
                self._answers.put(
                    (requests, self._answer(scorer, requests), scorer.bundle.bundle_id)
                )
        except BaseException as error:
            self._failures.append(error)
            arrivals.stop()
            self._requests.abandon()
        finally:
            self._answers.put(None)

    def _answer(self, scorer: Scorer, requests: Sequence[Request]) -> ScoredRows:
        """Score a micro-batch; positions are those of its rows."""
        rows = self._door.model_rows(requests, scorer.bundle.feature_names)
        scored = score_rows(scorer, rows.batch)
        unscorable = {int(rows.positions[row]): why for row, why in scored.refusals.items()}
        return ScoredRows(
            rows.positions[scored.positions], scored.scores, {**rows.refusals, **unscorable}
        )

    def _write_answers(self, stream: BinaryIO) -> None:
        """Write until there is no more, with statistics in between."""
        interval = Statistics()
        due = time.monotonic() + self._stats_every
        while True:
            if time.monotonic() >= due:
                if interval.num_rows:
                    self._log(f"last {self._stats_every:g} s: {interval.describe()}")
                interval = Statistics()
                due = time.monotonic() + self._stats_every
            try:
                item = self._answers.get(timeout=max(0.0, due - time.monotonic()))
            except queue.Empty:
                continue
            if item is None:
                return
            requests, scored, bundle_id = item
            self._door.write(stream, requests, scored, bundle_id)
            arrivals = np.repeat(
                [request.arrived for request in requests],
                [request.num_rows for request in requests],
            )
            for statistics in (interval, self.statistics):
                statistics.add(arrivals, num_errors=len(scored.refusals))
