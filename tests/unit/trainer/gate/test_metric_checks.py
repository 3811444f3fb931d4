"""Checks of what a bundle claims."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from trainer.config import GateConfig
from trainer.errors import ConfigError
from trainer.evaluate import classification_metrics
from trainer.release.gate.checks import GateCheck, GateVerdict, at_least, at_most, not_checked
from trainer.release.gate.metric_checks import chance_error, metric_checks

GATE = GateConfig(
    max_recency_deficit=0.02 + 1e-9,
    max_brier_excess=0.02 + 1e-9,
    max_baseline_deficit=0.03,
    max_baseline_log_loss_excess=0.04,
)


def metrics(
    *,
    auroc: float = 0.8,
    high: float = 0.85,
    recency: float = 0.7,
    brier: float = 0.15,
    kindness: float = 0.0,
    error: float = 0.05,
    **differences: dict[str, Any],
) -> dict[str, Any]:
    def table(value: float, upper: float, score: float) -> dict[str, Any]:
        return {
            "auroc": {"value": value, "low": value - 0.05, "high": upper},
            "brier_score": {"value": score, "low": score, "high": score},
            "expected_calibration_error": {"value": error, "low": error, "high": error},
        }

    return {
        "model": "bert",
        "splits": {"test": {"rows": 100_000_000}},
        "test": {
            "bert": table(auroc, high, brier),
            "recency": table(recency, recency, 0.2),
            "base_rate": table(0.5, 0.5, 0.2),
            **{name: table(0.8, 0.8, 0.2) for name in differences},
        },
        "differences": {
            "recency": {"auroc": {"high": auroc - recency + kindness}},
            "base_rate": {"brier_score": {"high": 0.2 - brier + kindness}},
            **differences,
        },
    }


def failures(document: dict[str, Any], gate: GateConfig = GATE) -> dict[str, str]:
    found = metric_checks(document, gate)
    return {check.name: check.message for check in found if not check.is_passed}


def logistic(auroc: float, log_loss: float) -> dict[str, Any]:
    return {"logistic": {"auroc": {"high": auroc}, "log_loss": {"high": log_loss}}}


@pytest.mark.parametrize(
    ("changes", "name", "message"),
    [
        pytest.param({}, None, "", id="good"),
        pytest.param({"high": 0.551}, None, "", id="chance-above"),
        pytest.param({"high": 0.55}, None, "", id="chance-at-bound"),
        pytest.param({"high": 0.549}, "test_auroc", "at best 0.549; at least 0.550", id="chance"),
        pytest.param({"recency": 0.82}, None, "", id="recency-at-bound"),
        pytest.param({"recency": 0.821}, "test_recency", "of the recency rule", id="recency"),
        pytest.param({"recency": 0.86, "kindness": 0.05}, None, "", id="recency-or-noise"),
        pytest.param({"brier": 0.22}, None, "", id="constant-at-bound"),
        pytest.param({"brier": 0.221}, "test_base_rate", "for everyone", id="constant"),
        pytest.param(logistic(-0.029, -0.039), None, "", id="baseline-above"),
        pytest.param(logistic(-0.03, -0.04), None, "", id="baseline-at-bound"),
        pytest.param(
            logistic(-0.031, 0.1), "test_baselines_auroc", "logistic, a gain", id="baseline-auroc"
        ),
        pytest.param(
            logistic(0.1, -0.041), "test_baselines_log_loss", "-0.041; at least -0.040", id="loss"
        ),
        pytest.param({"error": 0.0999}, None, "", id="calibration-below"),
        pytest.param({"error": 0.1}, None, "", id="calibration-at-bound"),
        pytest.param({"error": 0.102}, "test_calibration_error", "at most 0.100", id="calibration"),
    ],
)
def test_each_bound_names_its_number(
    changes: dict[str, Any], name: str | None, message: str
) -> None:
    found = failures(metrics(**changes))
    assert list(found) == ([name] if name else [])
    assert message in found.get(str(name), "")


def test_only_baselines_that_were_fitted_are_asked_for() -> None:
    found = metrics(recency=0.99, brier=0.9)
    del found["test"]["recency"], found["test"]["base_rate"]
    assert failures(found) == {}


def test_undefined_metric_breaks_no_bound() -> None:
    found = metrics()
    found["test"]["recency"]["auroc"]["value"] = None
    found["differences"]["recency"]["auroc"]["high"] = None
    assert failures(found) == {}
    json.dumps([check.to_dict() for check in metric_checks(found, GATE)], allow_nan=False)


@pytest.mark.parametrize("name", ["value", "high"])
def test_undefined_test_auroc_is_no_evidence(name: str) -> None:
    found = metrics()
    found["test"]["bert"]["auroc"][name] = None
    assert "no test numbers" in failures(found)["test_auroc"]


@pytest.mark.parametrize("document", [{}, {"test": {}, "model": "bert"}, {"test": None}])
def test_bundle_without_test_numbers_is_refused(document: dict[str, Any]) -> None:
    assert "no test numbers" in failures(document)["test_auroc"]


@pytest.mark.parametrize(
    ("low", "high", "is_refused"),
    [(0.09, 0.2, False), (0.1, 0.2, False), (0.101, 0.2, True), (-0.2, -0.101, True)],
)
def test_mean_probability_must_not_miss_the_churn_rate(
    low: float, high: float, is_refused: bool
) -> None:
    gap = {"value": (low + high) / 2, "low": low, "high": high}
    found = {**metrics(), "slices": {"all": {"metrics": {"calibration_gap": gap}}, "by": {}}}
    assert ("test_calibration_gap" in failures(found)) == is_refused


def test_chance_explains_the_error_of_a_calibrated_model() -> None:
    generator = np.random.default_rng(0)
    for num_rows in (200, 2_000):
        errors, expected = [], []
        for _ in range(60):
            probabilities = generator.beta(2, 2, num_rows)
            labels = (generator.random(num_rows) < probabilities).astype(float)
            found = classification_metrics(labels, probabilities, 0.5)
            errors.append(found["expected_calibration_error"])
            expected.append(chance_error(found["brier_score"], num_rows))
        assert np.mean(errors) == pytest.approx(np.mean(expected), rel=0.15)


def segment(name: str, **intervals: tuple[float | None, ...]) -> dict[str, Any]:
    """A measured segment; metrics that are not given are fine."""
    fine: dict[str, tuple[float | None, ...]] = {
        "auroc": (0.8, 0.7, 0.9),
        "auroc_against_all": (0.0, -0.1, 0.1),
        "calibration_gap_against_all": (0.0, -0.1, 0.1),
    }
    named = {
        metric: dict(zip(("value", "low", "high"), numbers, strict=True))
        for metric, numbers in {**fine, **intervals}.items()
    }
    return {"segment": name, "users": 500, "too_small": None, "metrics": named}


def with_segments(*segments: dict[str, Any]) -> dict[str, Any]:
    small = {"segment": "few", "users": 5, "too_small": "5 users, 100 needed"}
    division = {"source": "feature x", "segments": [segment("fine"), *segments, small]}
    return {**metrics(), "slices": {"by": {"tenure": division}}}


@pytest.mark.parametrize(
    ("bad", "name", "message"),
    [
        pytest.param({}, None, "", id="good"),
        pytest.param({"auroc": (0.4, 0.3, 0.501)}, None, "", id="auroc-above"),
        pytest.param({"auroc": (0.4, 0.3, 0.5)}, None, "", id="auroc-at-bound"),
        pytest.param(
            {"auroc": (0.4, 0.3, 0.499)}, "segment_auroc", "0.499; at least 0.500", id="auroc"
        ),
        pytest.param({"calibration_gap_against_all": (0.2, 0.1, 0.3)}, None, "", id="gap-at"),
        pytest.param({"calibration_gap_against_all": (-0.2, -0.3, -0.1)}, None, "", id="below"),
        pytest.param(
            {"calibration_gap_against_all": (0.2, 0.11, 0.3)},
            "segment_calibration_gap",
            "0.110; at most 0.100",
            id="gap-high",
        ),
        pytest.param(
            {"calibration_gap_against_all": (-0.2, -0.3, -0.12)},
            "segment_calibration_gap",
            "0.120",
            id="gap-low",
        ),
        pytest.param({"auroc_against_all": (-0.6, -0.7, -0.5)}, None, "", id="deficit-off"),
        pytest.param({"auroc": (None, None, None)}, None, "", id="undefined"),
    ],
)
def test_the_worst_segment_has_a_floor(bad: dict[str, Any], name: str | None, message: str) -> None:
    document = with_segments(segment("bad", **bad))
    found = failures(document)
    assert list(found) == ([name] if name else [])
    if name:
        assert "segment 'bad' of tenure (500 users)" in found[name]
        assert message in found[name]
    off = GateConfig(min_slice_auroc=None, max_slice_calibration_gap=None)
    assert failures(document, off) == {}


def test_the_distance_from_everybody_can_be_turned_on() -> None:
    found = with_segments(segment("bad", auroc_against_all=(-0.3, -0.4, -0.21)))
    assert failures(found, GateConfig(max_slice_auroc_deficit=0.22)) == {}
    told = failures(found, GateConfig(max_slice_auroc_deficit=0.2))
    assert "AUROC below everybody's" in told["segment_auroc_deficit"]
    assert "0.210" in told["segment_auroc_deficit"]


@pytest.mark.parametrize(
    ("value", "reaches", "keeps_below"),
    [(0.49, False, True), (0.5, True, True), (0.51, True, False), (None, True, True)],
)
def test_bounds_themselves_pass(value: float | None, reaches: bool, keeps_below: bool) -> None:
    assert at_least("x", value, 0.5, "x").is_passed == reaches
    assert at_most("x", value, 0.5, "x").is_passed == keeps_below


def test_a_check_that_cannot_be_made_counts_as_the_settings_say() -> None:
    assert not not_checked("parity", "no warehouse", "refuse").is_passed
    assert not_checked("parity", "no warehouse", "allow").is_passed


def test_verdict_names_every_failed_check_with_number_and_limit() -> None:
    checks = (
        at_least("a", 0.4, 0.5, "a is"),
        at_least("b", 0.6, 0.5, "b is"),
        at_most("c", 3.0, 2, "c is"),
    )
    verdict = GateVerdict(bundle_id="0" * 16, checks=checks, expected_champion=None)
    error = verdict.error()
    assert not verdict.is_passed
    assert "2 of 3 checks" in str(error)
    assert "a is 0.400; at least 0.500" in str(error)
    assert "c is 3; at most 2" in str(error)
    assert "b is" not in str(error)
    assert "--override --reason" in str(error)
    assert GateVerdict(bundle_id="", checks=checks[1:2], expected_champion=None).error() is None


@pytest.mark.parametrize(
    ("setting", "message"),
    [({"unchecked": "maybe"}, "refuse, allow"), ({"min_class_rows": 0}, "1 or more")],
)
def test_gate_settings_have_bounds(setting: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        GateConfig(**setting)


def test_a_check_is_plain_data() -> None:
    check = GateCheck(name="x", value=float("nan"), limit=1.0, is_passed=True, message="m")
    assert check.to_dict()["value"] is None
