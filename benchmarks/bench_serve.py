"""Latency and rate of `churn-score serve`, with rows that come at a given rate and at full speed.

    OMP_NUM_THREADS=1 python benchmarks/bench_serve.py [--rates 100,1000] [--models-dir DIR]

Starts the command as a process for each case, sends rows as JSON from this one and measures,
here, the time from the moment a row was due (so that a late sender does not flatter) to its
answer read. At full speed rows wait in pipes and queues, so latency says nothing but rows/s does.
Without --models-dir a small untrained model with 85 features is made. The last line is the table
as JSON.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from churn_udf.bundle_store import open_champion, set_champion

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from factories import input_batch, tiny_bundle

NUM_FEATURES = 85
MAX_PACED_SECONDS = 20.0


def main() -> int:
    """Run the benchmark; exit code 1 when a row was not answered or not in order."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=20_000, help="rows at full speed")
    parser.add_argument("--rates", default="100,1000", help="rows/s to send at, beside full speed")
    parser.add_argument("--max-batch", type=int, default=256)
    parser.add_argument("--max-wait-ms", type=float, default=5.0)
    parser.add_argument("--models-dir", type=Path)
    options = parser.parse_args()
    rates = [float(rate) for rate in options.rates.split(",") if rate]
    with tempfile.TemporaryDirectory() as scratch:
        models_dir = options.models_dir or Path(scratch)
        if options.models_dir is None:
            names = [f"feature_{number}" for number in range(NUM_FEATURES)]
            set_champion(models_dir, tiny_bundle(models_dir, names).bundle_id, reason="benchmark")
        bundle = open_champion(models_dir)
        most = max(options.rows, *(int(rate * MAX_PACED_SECONDS) for rate in rates), 1)
        lines = make_lines(min(most, options.rows), bundle.feature_names)
        command = [sys.executable, "-m", "churn_udf.cli", "serve", "--models-dir", str(models_dir)]
        command += ["--max-batch", str(options.max_batch)]
        command += ["--max-wait-ms", str(options.max_wait_ms), "--pin"]
        cases = []
        for rate in [*rates, math.inf]:
            paced = len(lines) if math.isinf(rate) else int(rate * MAX_PACED_SECONDS)
            cases.append(measure(command, lines[:paced], rate))
    print(
        f"{'sent at':>12} {'rows':>8} {'rows/s':>8} {'p50 ms':>9} {'p99 ms':>9}  the service's own"
    )
    for case in cases:
        sent_at = f"{case['rate']:,.0f}/s" if case["rate"] else "full speed"
        print(
            f"{sent_at:>12} {case['rows']:>8,} {case['rows_per_second']:>8,.0f} "
            f"{case['p50_ms']:>9.2f} {case['p99_ms']:>9.2f}  {case['own']}"
        )
    document = {
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "max_batch": options.max_batch,
        "max_wait_ms": options.max_wait_ms,
        "cases": cases,
    }
    print(json.dumps(document))
    return 0


def make_lines(num_rows: int, names: tuple[str, ...]) -> list[bytes]:
    """Return rows as JSON, one a line, as a client would send them."""
    rows = input_batch(num_rows, names).drop_columns(["input_hash"]).to_pylist()
    return [(json.dumps({"id": number, **row}) + "\n").encode() for number, row in enumerate(rows)]


def measure(command: list[str], lines: list[bytes], rate: float) -> dict[str, Any]:
    """Send lines at a rate (rows/s, infinite for full speed) and time the answers."""
    answered: list[float] = []
    ids: list[int] = []
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stderr.readline().startswith(b"ready: ")

        def receive() -> None:
            for line in process.stdout or ():
                answered.append(time.monotonic())
                ids.append(json.loads(line)["id"])

        receiver = threading.Thread(target=receive)
        receiver.start()
        started = time.monotonic()
        due = started + np.arange(len(lines)) / rate
        for line, moment in zip(lines, due, strict=True):
            time.sleep(max(0.0, moment - time.monotonic()))
            process.stdin.write(line)
            if not math.isinf(rate):
                process.stdin.flush()
        process.stdin.close()
        receiver.join()
        own = process.stderr.read().decode().strip().splitlines()[-1]
    if ids != list(range(len(lines))):
        sys.exit(f"{len(ids):,} answers to {len(lines):,} rows, or not in their order")
    latencies = np.array(answered) - due
    p50, p99 = (float(np.quantile(latencies, share) * 1e3) for share in (0.5, 0.99))
    return {
        "rate": None if math.isinf(rate) else rate,
        "rows": len(lines),
        "rows_per_second": len(lines) / (answered[-1] - started),
        "p50_ms": p50,
        "p99_ms": p99,
        "own": own.partition("latency ")[2],
    }


if __name__ == "__main__":
    sys.exit(main())
