"""Measuring ways in turns, and the table that comes of it."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from churn_udf.tokenization import TokenBatch

FloatArray = npt.NDArray[np.float64]
FP32, BF16, INT8 = "fp32", "bf16", "int8"
BASELINE = "tutorial loop, padded to 128, batch 16"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Way:
    """One way of scoring."""

    name: str
    precision: str
    """``fp32``, ``bf16`` or ``int8``."""
    prepare: Callable[[TokenBatch], Any]
    """Turns tokens into the way's own inputs; not timed."""
    run: Callable[[Any], FloatArray]
    """Scores what was prepared: (B,) logits in the order of the tokens; timed."""
    is_ours: bool = False
    every: int = 1
    """Scores every n-th text, shortest to longest, where the batch's make-up changes nothing."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Absent:
    """A way that cannot run here."""

    name: str
    precision: str
    reason: str
    is_ours: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """What one way did with one encoder; numbers are None where it could not run."""

    encoder: str
    way: str
    precision: str
    is_ours: bool
    rows_per_cpu_second: float | None = None
    ratio: float | None = None
    """Times as fast as the tutorial loop."""
    share_of_floor: float | None = None
    max_probability_change: float | None = None
    """Largest difference from the fp32 ``transformers`` model, in [0, 1]."""
    note: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Timing:
    """Best repetition of a way, and its answers to the first draw."""

    texts: npt.NDArray[np.int64]
    """Indices of the texts it scored."""
    seconds: float
    logits: FloatArray


def chosen_texts(lengths: npt.NDArray[np.int64], every: int) -> npt.NDArray[np.int64]:
    """Return the indices of every n-th text by length, in their own order."""
    return np.sort(np.argsort(lengths, kind="stable")[every // 2 :: every])


def measure(
    ways: Sequence[Way], draw: Callable[[int], TokenBatch], *, repetitions: int
) -> list[Timing]:
    """Time all ways in turns, so that what disturbs the machine disturbs them all alike.

    Every repetition scores new words of the same lengths: what a way remembers of a text it has
    seen helps it no more than it would in a real job. Draw 0 warms up and gives the answers.

    Args:
        ways: The ways.
        draw: Number of a draw -> its texts; the lengths are those of draw 0.
        repetitions: Timed turns, at least 1; the best counts.

    Returns:
        One timing a way, in CPU seconds of this process (all threads).
    """
    first = draw(0)
    texts = [chosen_texts(first.lengths, way.every) for way in ways]
    logits = [
        way.run(way.prepare(first.take(chosen))) for way, chosen in zip(ways, texts, strict=True)
    ]
    best = [float("inf")] * len(ways)
    for repetition in range(repetitions):
        tokens = draw(repetition + 1)
        for place in range(len(ways)):
            index = (place + repetition) % len(ways)
            prepared = ways[index].prepare(tokens.take(texts[index]))
            started = time.process_time()
            ways[index].run(prepared)
            best[index] = min(best[index], time.process_time() - started)
    return [
        Timing(texts=chosen, seconds=seconds, logits=answers)
        for chosen, seconds, answers in zip(texts, best, logits, strict=True)
    ]


def make_rows(
    encoder: str,
    ways: Sequence[Way],
    timings: Sequence[Timing],
    *,
    reference_logits: FloatArray,
    floor_seconds: Callable[[npt.NDArray[np.int64], str], float],
) -> list[Row]:
    """Return the table's rows.

    Args:
        encoder: Its name.
        ways: The ways.
        timings: One each; the tutorial loop (``BASELINE``) must be among them.
        reference_logits: (all texts,) logits of the fp32 ``transformers`` model.
        floor_seconds: Texts' indices and precision -> CPU seconds of the arithmetic alone.
    """
    rates = [len(timing.texts) / timing.seconds for timing in timings]
    baseline = rates[[way.name for way in ways].index(BASELINE)]
    rows = []
    for way, timing, rate in zip(ways, timings, rates, strict=True):
        change = sigmoid(timing.logits) - sigmoid(reference_logits[timing.texts])
        rows.append(
            Row(
                encoder=encoder,
                way=way.name,
                precision=way.precision,
                is_ours=way.is_ours,
                rows_per_cpu_second=rate,
                ratio=rate / baseline,
                share_of_floor=floor_seconds(timing.texts, way.precision) / timing.seconds,
                max_probability_change=float(np.abs(change).max()),
            )
        )
    return rows


def absent_row(encoder: str, way: Absent) -> Row:
    """Return the row of a way that could not run."""
    return Row(
        encoder=encoder,
        way=way.name,
        precision=way.precision,
        is_ours=way.is_ours,
        note=way.reason,
    )


def judge(rows: Sequence[Row]) -> dict[str, dict[str, Any]]:
    """Return per encoder whether ours is first, and by how much.

    ``fp32``: ours in fp32 against all others in fp32. ``quantised``: ours in int8 against all
    others. ``lead`` is our rate divided by that of the best other, None where ours did not run;
    ways that could not run are not judged, but ours must have run to be first.
    """
    verdicts: dict[str, dict[str, Any]] = {}
    for encoder in dict.fromkeys(row.encoder for row in rows):
        mine = [row for row in rows if row.encoder == encoder]
        verdicts[encoder] = {
            "fp32": _place([row for row in mine if row.precision == FP32], FP32),
            "quantised": _place(mine, INT8),
        }
    return verdicts


def _place(rows: Sequence[Row], precision: str) -> dict[str, Any]:
    """Return our place in this precision among these rows of others."""
    ours = [row for row in rows if row.is_ours and row.precision == precision]
    measured = [row for row in rows if not row.is_ours and row.rows_per_cpu_second is not None]
    best = max(measured, key=lambda row: row.rows_per_cpu_second or 0.0, default=None)
    rate = max((row.rows_per_cpu_second or 0.0 for row in ours), default=0.0)
    if best is None or not rate:
        return {"is_first": bool(rate), "best_other": None, "lead": None}
    lead = rate / (best.rows_per_cpu_second or 0.0)
    return {"is_first": lead > 1.0, "best_other": f"{best.way}, {best.precision}", "lead": lead}


def format_rows(rows: Sequence[Row]) -> str:
    """Return the table as Markdown, fastest first within an encoder, absent ways last."""
    lines = [
        "| encoder | way | numbers | rows / CPU s | ratio | share of floor | largest change |",
        "|---|---|---|--:|--:|--:|--:|",
    ]
    order = list(dict.fromkeys(row.encoder for row in rows))
    for row in sorted(
        rows, key=lambda row: (order.index(row.encoder), -(row.rows_per_cpu_second or 0.0))
    ):
        way = f"**{row.way}**" if row.is_ours else row.way
        head = f"| {row.encoder} | {way} | {row.precision} |"
        if row.rows_per_cpu_second is None:
            lines.append(f"{head} {row.note} | | | |")
            continue
        lines.append(
            f"{head} {row.rows_per_cpu_second:,.0f} | {row.ratio:.2f} | {row.share_of_floor:.2f} | "
            f"{row.max_probability_change:.1e} |"
        )
    return "\n".join(lines)


def rounded(value: Any) -> Any:
    """Return the same structure with four significant digits, for one line of JSON."""
    if isinstance(value, Mapping):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(item) for item in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


def sigmoid(logits: FloatArray) -> FloatArray:
    """Return probabilities."""
    return 1.0 / (1.0 + np.exp(-logits.astype(np.float64)))
