"""The scoring benchmark's counting, table and verdicts."""

from __future__ import annotations

import json

import numpy as np
import pytest

from churn_udf.tokenization import TokenBatch
from scoring_ways.floor import count_flops
from scoring_ways.table import (
    BASELINE,
    Absent,
    Row,
    Timing,
    Way,
    absent_row,
    chosen_texts,
    format_rows,
    judge,
    make_rows,
    measure,
    rounded,
)
from scoring_ways.workload import POPULATION, EncoderShape, sample_lengths

SHAPE = EncoderShape(name="two", num_layers=2, hidden_size=8, num_heads=2, num_words=20)


def row(way: str, precision: str, rate: float | None, *, is_ours: bool = False) -> Row:
    return Row(
        encoder="two",
        way=way,
        precision=precision,
        is_ours=is_ours,
        rows_per_cpu_second=rate,
        ratio=rate,
        share_of_floor=0.5,
        max_probability_change=0.0,
        note="" if rate else "not installed",
    )


def test_flops_of_one_text_by_hand() -> None:
    # 3 tokens; a product of an 8 vector with an 8 x 8 matrix is 2 * 64 = 128 FLOPs
    first_layer = 3 * 4 * 128 + 3 * 2 * 4 * 128  # query, key, value, output; two feed-forward
    first_attention = 2 * (2 * 3 * 3 * 8)  # scores and mixture, 3 tokens by 3
    last_layer = 3 * 2 * 128 + 2 * 128 + 2 * 4 * 128  # keys, values; the first token's rest
    last_attention = 2 * (2 * 1 * 3 * 8)
    expected = first_layer + first_attention + last_layer + last_attention
    assert count_flops(np.array([3]), SHAPE) == expected


def test_flops_add_up_over_texts() -> None:
    apart = count_flops(np.array([3]), SHAPE) + count_flops(np.array([7]), SHAPE)
    assert count_flops(np.array([3, 7]), SHAPE) == apart


@pytest.mark.parametrize("rows", [1, 49, 130, POPULATION])
def test_lengths_of_a_sample_lie_like_those_of_the_population(rows: int) -> None:
    lengths = sample_lengths(rows, np.random.default_rng(0))
    assert len(lengths) == rows
    assert lengths.min() >= 8
    assert lengths.max() <= 128
    assert 40 <= lengths.mean() <= 60


@pytest.mark.parametrize("rows", [0, POPULATION + 1])
def test_a_sample_beyond_the_population_is_an_error(rows: int) -> None:
    with pytest.raises(ValueError, match=f"{rows} rows; allowed: 1 to {POPULATION}"):
        sample_lengths(rows, np.random.default_rng(0))


def test_every_second_text_is_chosen_by_length_and_kept_in_its_order() -> None:
    chosen = chosen_texts(np.array([40, 10, 30, 20]), 2)
    assert chosen.tolist() == [0, 3]  # of 10, 20, 30, 40 tokens the second and the fourth
    assert chosen_texts(np.array([40, 10]), 1).tolist() == [0, 1]


def test_ways_take_turns_on_new_words_and_prepare_beforehand() -> None:
    calls: list[tuple[str, int]] = []

    def draw(number: int) -> TokenBatch:
        zeros = np.zeros(2, dtype=np.int64)
        return TokenBatch(zeros + number, zeros, zeros + 1, zeros.astype(bool))

    def way(name: str) -> Way:
        def run(tokens: TokenBatch) -> np.ndarray:
            calls.append((name, int(tokens.ids[0])))
            return tokens.ids.astype(np.float64)

        return Way(name=name, precision="fp32", prepare=lambda tokens: tokens, run=run)

    timings = measure([way("a"), way("b")], draw, repetitions=2)
    assert calls == [("a", 0), ("b", 0), ("a", 1), ("b", 1), ("b", 2), ("a", 2)]
    assert [timing.logits.tolist() for timing in timings] == [[0.0, 0.0], [0.0, 0.0]]
    assert all(0.0 <= timing.seconds < 1.0 for timing in timings)


def test_rows_compare_with_the_tutorial_loop_the_floor_and_the_reference() -> None:
    def way(name: str, **options: object) -> Way:
        return Way(name=name, precision="fp32", prepare=lambda t: t, run=lambda t: t, **options)

    texts = np.arange(4)
    timings = [
        Timing(texts=texts[:2], seconds=2.0, logits=np.zeros(2)),
        Timing(texts=texts, seconds=1.0, logits=np.array([0.0, 0.0, 0.0, 1.0])),
    ]
    tutorial, other = make_rows(
        "two",
        [way(BASELINE, every=2), way("other", is_ours=True)],
        timings,
        reference_logits=np.zeros(4),
        floor_seconds=lambda chosen, precision: 0.2 * len(chosen),
    )
    assert (tutorial.rows_per_cpu_second, tutorial.ratio) == (1.0, 1.0)
    assert tutorial.share_of_floor == pytest.approx(0.2)
    assert tutorial.max_probability_change == 0.0
    assert (other.rows_per_cpu_second, other.ratio, other.is_ours) == (4.0, 4.0, True)
    assert other.share_of_floor == pytest.approx(0.8)
    assert other.max_probability_change == pytest.approx(1 / (1 + np.exp(-1.0)) - 0.5)


@pytest.mark.parametrize(
    ("our_fp32", "our_int8", "is_first"),
    [(11.0, 31.0, (True, True)), (9.0, 31.0, (False, True)), (11.0, 29.0, (True, False))],
    ids=["both", "slow in fp32", "slow in int8"],
)
def test_verdict(our_fp32: float, our_int8: float, is_first: tuple[bool, bool]) -> None:
    rows = [
        row("theirs", "fp32", 10.0),
        row("theirs", "bf16", 20.0),
        row("theirs", "int8", 30.0),
        row("gone", "int8", None),
        row("ours", "fp32", our_fp32, is_ours=True),
        row("ours", "bf16", 99.0, is_ours=True),
        row("ours", "int8", our_int8, is_ours=True),
    ]
    places = judge(rows)["two"]
    assert (places["fp32"]["is_first"], places["quantised"]["is_first"]) == is_first
    assert places["fp32"]["lead"] == pytest.approx(our_fp32 / 10)
    assert places["quantised"]["best_other"] == "theirs, int8"


def test_a_tie_is_not_first_and_a_way_of_ours_that_did_not_run_neither() -> None:
    rows = [
        row("theirs", "fp32", 10.0),
        row("ours", "fp32", 10.0, is_ours=True),
        row("ours", "int8", None, is_ours=True),
    ]
    places = judge(rows)["two"]
    assert not places["fp32"]["is_first"]
    assert not places["quantised"]["is_first"]


def test_table_is_fastest_first_with_absent_ways_last() -> None:
    gone = absent_row("two", Absent(name="gone", precision="int8", reason="not installed: x"))
    rows = [gone, row("slow", "fp32", 1.0), row("ours", "fp32", 2_000.0, is_ours=True)]
    lines = format_rows(rows).splitlines()[2:]
    assert [line.split(" | ")[1] for line in lines] == ["**ours**", "slow", "gone"]
    assert "| 2,000 |" in lines[0]
    assert "not installed: x" in lines[2]
    assert len({line.count("|") for line in lines}) == 1


def test_report_is_rounded_for_one_line_of_json() -> None:
    value = {"a": [1.23456, None, "x"], "b": {"c": 123456.0, "d": 7}}
    assert json.dumps(rounded(value)) == '{"a": [1.235, null, "x"], "b": {"c": 123500.0, "d": 7}}'
