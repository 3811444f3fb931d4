"""Scoring speed of this project's engine against others, and of the whole `dbt run`.

    python benchmarks/bench_score.py [--quick] [--encoders tiny,mini] [--json FILE]

Encoders with random weights: `tiny` (2 x 128, the compact default), `mini` (4 x 256), `minilm`
(6 x 384), `base` (12 x 768, only when named). 4,000 texts of 8 to 128 tokens, 50 on average;
with fewer rows, a sample in blocks of like length. One thread; the runtimes of the extra `bench`
take part where they are installed.

Rules. All ways score the same tokens with the same weights; each is timed in turn, every turn on
new words, in CPU seconds of the process; the best turn counts. Tokenising is left out of all but
the pipeline (it takes texts) and stands in a table of its own. What the others need beforehand
(padding, sorting) is not timed; ours sorts and packs within its time. "Share of floor" is the
time that the arithmetic alone takes, at the rate of matrix products of the way's own precision
measured in the same run: FLOPs of unpadded tokens, the last layer for the first token alone (see
`scoring_ways/floor.py`). "Largest change" is that of a probability against the fp32 model of
`transformers`; weights are random, so it is a rough guide: packaging checks a trained model's.

The whole path is `bench_path.py` in a process of its own: `dbt run` on 200,000 users, split by
stage, in CPU seconds. The last line is everything as one line of JSON. Exit code 1: ours in fp32
is not first among fp32, ours in int8 is not first of all, or the whole path takes more than 1.3
times the model alone.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# isort: off
from scoring_ways.table import (  # first: its churn_udf sets OpenMP's wait policy for torch
    Absent,
    Row,
    Way,
    absent_row,
    format_rows,
    judge,
    make_rows,
    measure,
    rounded,
)

import pyarrow as pa
import torch
# isort: on

from scoring_ways.floor import count_flops, gemm_rates
from scoring_ways.onnx_ways import missing_packages, onnx_ways
from scoring_ways.torch_ways import our_ways, reference_logits, torch_ways, word_tokenizer
from scoring_ways.workload import ENCODERS, POPULATION, Workload

QUICK_ROWS = {"tiny": 1_000, "mini": 300, "minilm": 150, "base": 50}
QUICK_REPETITIONS = {"tiny": 3, "mini": 2, "minilm": 2, "base": 2}
REPETITIONS = 5
USERS = 200_000
MOST_PATH_RATIO = 1.3
PATH_BENCHMARK = Path(__file__).with_name("bench_path.py")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark.

    Returns:
        Exit code: 0 where ours is first as required, 1 where it is not.
    """
    options = parse(arguments)
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    started = time.monotonic()
    rows: list[Row] = []
    machine: dict[str, Any] = {"processor": processor(), "torch": torch.__version__}
    floors, tokenisation = {}, {}
    for name in options.encoders:
        count = options.rows or (QUICK_ROWS[name] if options.quick else POPULATION)
        turns = QUICK_REPETITIONS[name] if options.quick else REPETITIONS
        repetitions = options.repetitions or turns
        with tempfile.TemporaryDirectory() as scratch:
            workload = Workload(ENCODERS[name], count)
            measured, rates = compare(workload, repetitions, Path(scratch))
        rows += measured
        floors[name] = {precision: rate / 1e9 for precision, rate in rates.items()}
        tokenisation[name] = tokenisation_rates(workload)
        shown = ", ".join(f"{key} {rate:,.0f}" for key, rate in floors[name].items())
        lengths = workload.lengths
        print(
            f"\n{workload.shape.label}: {count:,} texts, mean {lengths.mean():.1f} tokens, at most "
            f"{lengths.max()}; best of {repetitions}; GFLOP a CPU second: {shown}\n"
        )
        print(format_rows(measured))
        for label, rate in tokenisation[name].items():
            print(f"tokenising, {label}: {rate:,.0f} rows a CPU second")
        sys.stdout.flush()
    path = whole_path(options.users)
    verdicts = judge(rows)
    print_path(path)
    print_verdicts(verdicts)
    report = rounded(
        {
            "machine": machine,
            "seconds": time.monotonic() - started,
            "rows": [dataclasses.asdict(row) for row in rows],
            "gflop_a_cpu_second": floors,
            "tokenised_rows_a_cpu_second": tokenisation,
            "path": path,
            "first": verdicts,
            "not_installed": missing_packages(),
        }
    )
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(report))
    is_first = all(place["is_first"] for places in verdicts.values() for place in places.values())
    return int(not is_first or path["is_fast"] is False)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer texts, under 5 minutes")
    parser.add_argument(
        "--encoders", default="tiny,mini,minilm", help=f"of {', '.join(ENCODERS)}, with commas"
    )
    parser.add_argument("--rows", type=int, help=f"texts of each encoder, at most {POPULATION}")
    parser.add_argument("--repetitions", type=int, help="timed turns of each way")
    parser.add_argument("--users", type=int, default=USERS, help="of the whole path; 0: none")
    parser.add_argument("--json", type=Path, help="write the report to this file too")
    options = parser.parse_args(arguments)
    options.encoders = options.encoders.split(",")
    unknown = [name for name in options.encoders if name not in ENCODERS]
    if unknown:
        parser.error(f"--encoders {', '.join(unknown)}; allowed: {', '.join(ENCODERS)}")
    if options.rows is not None and not 1 <= options.rows <= POPULATION:
        parser.error(f"--rows {options.rows}; allowed: 1 to {POPULATION}")
    if options.repetitions is not None and options.repetitions < 1:
        parser.error(f"--repetitions {options.repetitions}; allowed: 1 or more")
    return options


def compare(
    workload: Workload, repetitions: int, scratch: Path
) -> tuple[list[Row], dict[str, float]]:
    """Time every way on one encoder.

    Args:
        workload: What is scored.
        repetitions: Timed turns of each way.
        scratch: An existing directory.

    Returns:
        Rows of the table, and FLOP a CPU second of matrix products by precision.
    """
    rates = gemm_rates(workload.shape)
    entries: list[Way | Absent] = [
        *torch_ways(workload),
        *onnx_ways(workload, scratch),
        *our_ways(workload),
    ]
    ways = [entry for entry in entries if isinstance(entry, Way)]
    timings = measure(ways, workload.draw, repetitions=repetitions)
    rows = make_rows(
        workload.shape.label,
        ways,
        timings,
        reference_logits=reference_logits(workload, workload.draw(0)),
        floor_seconds=lambda texts, precision: (
            count_flops(workload.lengths[texts], workload.shape) / rates[precision]
        ),
    )
    absent = [entry for entry in entries if isinstance(entry, Absent)]
    return rows + [absent_row(workload.shape.label, entry) for entry in absent], rates


def tokenisation_rates(workload: Workload) -> dict[str, float]:
    """Return rows a CPU second of turning texts into token ids, best of three."""
    texts = workload.texts(workload.draw(0))
    column, empty = pa.array(texts), pa.array([""] * len(texts))
    library = word_tokenizer(workload)
    calls = {
        "ours, whole words": lambda: workload.tokenizer.encode(column, empty),
        "transformers, fast, whole words": lambda: library(texts, truncation=True),
    }
    best = dict.fromkeys(calls, float("inf"))
    for _ in range(3):
        for name, call in calls.items():
            started = time.process_time()
            call()
            best[name] = min(best[name], time.process_time() - started)
    return {name: len(texts) / seconds for name, seconds in best.items()}


def whole_path(users: int) -> dict[str, Any]:
    """Return the stages of `dbt run` in CPU seconds, as ``bench_path.py`` prints them.

    Where it ends without a table, ``note`` says why; `users` of 0 leaves it out.
    """
    if not users:
        return {"note": "left out: --users 0", "is_fast": None}
    completed = subprocess.run(
        [sys.executable, str(PATH_BENCHMARK), "--users", str(users)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        (path,) = json.loads(completed.stdout.splitlines()[-1])
        return {**path, "is_fast": path["ratio"] <= MOST_PATH_RATIO}
    except (IndexError, ValueError, KeyError, TypeError):
        last_words = (completed.stderr.strip().splitlines() or ["nothing"])[-1]
        return {
            "note": f"failed: {PATH_BENCHMARK.name} ended with exit code {completed.returncode} "
            f"and no table; its last words: {last_words}; run it alone to see why",
            "is_fast": False,
        }


def print_path(path: dict[str, Any]) -> None:
    """Print the stages of the whole path."""
    if "note" in path:
        print(f"\nwhole path {path['note']}")
        return
    print("\nwhole path, CPU seconds:\n| " + " | ".join(path) + " |\n|" + "---|" * len(path))
    print("| " + " | ".join(str(value) for value in path.values()) + " |")


def print_verdicts(verdicts: dict[str, dict[str, Any]]) -> None:
    """Print who is first."""
    print()
    for encoder, places in verdicts.items():
        for kind, place in places.items():
            word = "first" if place["is_first"] else "NOT FIRST"
            lead = f"{place['lead']:.2f} times" if place["lead"] else "did not run beside"
            print(f"{encoder}, ours {kind}: {word}, {lead} {place['best_other']}")


def processor() -> str:
    """Return the processor's name (Linux), else the architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]}, {len(names)} threads" if names else platform.machine()


if __name__ == "__main__":
    sys.exit(main())
