from __future__ import annotations

import numpy as np
import pytest

from churn_udf.cli.statistics import Latencies, Statistics


@pytest.mark.parametrize("percent", [1, 50, 95, 99, 100])
def test_percentiles_are_one_percent_exact(percent: int) -> None:
    seconds = np.random.default_rng(0).lognormal(-5, 1, 10_000)
    latencies = Latencies()
    for part in np.array_split(seconds, 7):
        latencies.add(part)
    exact = np.quantile(seconds, percent / 100, method="inverted_cdf")
    assert exact <= latencies.percentile(percent) <= exact * 1.0101


def test_the_largest_latencies_count_too() -> None:
    latencies = Latencies()
    latencies.add(np.array([0.0, 1e9]))
    assert latencies.percentile(50) < 1e-5
    assert latencies.percentile(99) > 900


def test_no_latency_yet() -> None:
    assert Latencies().percentile(99) == 0.0


def test_one_line_tells_all() -> None:
    now = iter([11.0, 12.0])
    statistics = Statistics(clock=lambda: next(now))
    assert statistics.describe() == "0 rows, 0 errors"
    statistics.add(np.full(1_500, 10.0), num_errors=2)
    statistics.add(np.full(500, 11.9), num_errors=0)
    line = statistics.describe()
    assert line.startswith("2,000 rows, 2 errors in 2.0 s (1,000 rows/s); latency p50 10")
    assert statistics.num_rows == 2_000
