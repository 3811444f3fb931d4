"""Scoring speed on a GPU: rows/s and share of the peak, for mini, MiniLM and base.

    python benchmarks/bench_gpu.py [--encoders mini,minilm,base] [--rows 200000]

The model alone and the whole core (tokenise, encode, fuse) in bf16 and fp32, on the workload of
`bench_score.py`. The peak is that of a large bf16 matrix product in the same run; FLOPs are those
of unpadded tokens (`scoring_ways/floor.py`). The last line is the table as one line of JSON.
Without a GPU it says so and measures nothing.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
import torch

from churn_udf.model.precision import BF16, FP32, Precision
from churn_udf.model.runner import ModelRunner
from scoring_ways.floor import count_flops
from scoring_ways.workload import ENCODERS, POPULATION, Workload

PEAK_SIZE = 8_192
REPETITIONS = 5


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; without a GPU there is nothing to run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--encoders", default="mini,minilm,base")
    parser.add_argument("--rows", type=int, default=200_000)
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        print("no GPU that torch sees: nothing measured")
        return 0
    name = torch.cuda.get_device_name()
    peaks = {mode: peak_flops(dtype) for mode, dtype in ((BF16, torch.bfloat16), (FP32, None))}
    print(
        f"{name}: {', '.join(f'{mode} {peak / 1e12:,.0f} TFLOP/s' for mode, peak in peaks.items())}"
    )
    table = []
    for encoder in options.encoders.split(","):
        for mode, peak in peaks.items():
            table.append({"encoder": encoder, "mode": mode, **measure(encoder, mode, options.rows)})
            row = table[-1]
            row["share_of_peak"] = row["model_rows_per_second"] * row["flops_per_row"] / peak
            print(
                f"{encoder:8} {mode:5} model {row['model_rows_per_second']:>11,.0f} rows/s, "
                f"{row['share_of_peak']:.0%} of peak; with tokenising "
                f"{row['whole_rows_per_second']:>11,.0f} rows/s"
            )
    print(json.dumps({"device": name, "torch": torch.__version__, "rows": table}))
    return 0


def measure(encoder: str, mode: str, rows: int) -> dict[str, float]:
    """Return rows/s of the model alone and with tokenising."""
    workload = Workload(ENCODERS[encoder], POPULATION)
    tokens = workload.draw(1)
    texts = pa.array(workload.texts(tokens))
    times = -(-rows // POPULATION)
    tokens = tokens.take(np.tile(np.arange(POPULATION), times))
    texts = pa.concat_arrays([texts] * times)
    reviews = pa.array([""] * len(texts))
    features = np.zeros((len(texts), 1))
    runner = ModelRunner(
        workload.classifier, workload.tokenizer, device="cuda", precision=Precision(mode=mode)
    )
    model = best_seconds(lambda: runner.run_tokens(tokens, features, with_effects=False))
    whole = best_seconds(lambda: runner.run(texts, reviews, features, with_effects=False))
    return {
        "model_rows_per_second": len(texts) / model,
        "whole_rows_per_second": len(texts) / whole,
        "flops_per_row": count_flops(workload.lengths, workload.shape) / POPULATION,
    }


def peak_flops(dtype: torch.dtype | None) -> float:
    """Return FLOP/s of a large matrix product."""
    left = torch.randn(PEAK_SIZE, PEAK_SIZE, device="cuda", dtype=dtype or torch.float32)
    return 2 * PEAK_SIZE**3 / best_seconds(lambda: left @ left)


def best_seconds(call: Callable[[], object]) -> float:
    """Return the fewest seconds of a call, the device's work included."""
    best = float("inf")
    for _ in range(REPETITIONS + 1):
        torch.cuda.synchronize()
        started = time.perf_counter()
        call()
        torch.cuda.synchronize()
        best = min(best, time.perf_counter() - started)
    return best


if __name__ == "__main__":
    sys.exit(main())
