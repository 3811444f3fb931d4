"""What the training benchmark concludes from its two loss curves."""

import importlib.util
from pathlib import Path

import pytest

FILE = Path(__file__).parents[3] / "benchmarks" / "bench_train.py"


@pytest.fixture(scope="module")
def seconds_to():
    spec = importlib.util.spec_from_file_location("bench_train", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.seconds_to


@pytest.mark.parametrize(
    ("target", "expected"),
    [(0.65, 1.0), (0.6, 2.0), (0.58, 4.0 + 4 / 3), (0.7, 0.0), (0.9, 0.0), (0.49, None)],
)
def test_time_to_a_loss_lies_on_the_line_between_two_turns(seconds_to, target, expected):
    curve = [(0.0, 0.7), (2.0, 0.6), (4.0, 0.62), (6.0, 0.56), (8.0, 0.5)]
    assert seconds_to(target, curve) == (None if expected is None else pytest.approx(expected))
