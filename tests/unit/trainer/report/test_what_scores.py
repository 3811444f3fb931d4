"""What the report says of ensemble, fits and base rate, for every kind of model."""

import math
import re
from dataclasses import replace

import pytest

from tests.report_example import make_report
from trainer.judgement import model_title
from trainer.report import render_report
from trainer.report.data import FitFacts
from trainer.report.ensemble import base_rate_text, fits_text
from trainer.report.words import summary_sentences, verdict

WEIGHTS = {"bert": 0.25, "gbm": 0.5, "logistic": 0.2}
TABLE = {
    "chosen": "bert",
    "reason": "lowest validation log loss",
    "valid_log_loss": {"stack": 0.5301, "bert": 0.5297},
    "weights": {"bert": {"bert": 1.0}, "stack": WEIGHTS},
}
FITS = [
    FitFacts(name="first", purpose="chosen with it", num_rows=1200, last_cutoff="2024-02-12"),
    FitFacts(
        name="refit",
        purpose="judged by the test",
        num_rows=2400,
        last_cutoff="2024-04-08",
        is_judged=True,
    ),
    FitFacts(name="final", purpose="scores", num_rows=3000, last_cutoff="2024-05-06"),
]


def text_of(run):
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", render_report(run)))


def test_choice_weights_and_fits_are_shown():
    text = text_of(make_report(ensemble=TABLE, fits=FITS, base_rate_notes=["It is expected."]))
    for expected in (
        "Lowest validation log loss.",
        "weights: trees 0.50, BERT 0.25, logistic 0.20",
        "0.5297 ✓",
        "0.5301",
        "final scores 3,000 2024-05-06",
        "nothing tests the last one",
        "It is expected.",
    ):
        assert expected in text, expected


def test_without_an_ensemble_there_is_no_such_part():
    assert "What scores" not in text_of(make_report())


@pytest.mark.parametrize(
    ("kind", "weights", "title"),
    [
        ("bert", {"bert": 1.0}, "BERT (folder) with features"),
        ("gbm", {"gbm": 1.0}, "Gradient boosting"),
        ("stack", WEIGHTS, "Stack (BERT, trees, logistic)"),
        ("stack", {"rfm_logistic": 0.4, "gbm": 0.5}, "Stack (trees, RFM)"),
    ],
    ids=["bert", "gbm", "stack", "stack-without-bert"],
)
def test_titles_name_what_has_a_weight(kind, weights, title):
    assert model_title(kind, "some/folder", weights) == title


def test_verdict_is_not_about_the_other_kinds_of_the_run():
    run = make_report(alternatives=["lightgbm"])
    assert "LightGBM" not in verdict(run).headline
    assert "LightGBM" in verdict(make_report()).headline


def test_alternatives_must_be_models_of_the_report():
    with pytest.raises(ValueError, match="alternatives name models without probabilities"):
        make_report(alternatives=["stack"])


def test_a_test_apart_by_users_is_not_called_later():
    later = " ".join(summary_sentences(make_report()))
    apart = " ".join(summary_sentences(make_report(is_test_later=False)))
    assert "from a later time" in later
    assert "from a later time" not in apart
    assert "customers that the judged fit has not learned from" in apart


@pytest.mark.parametrize(
    ("fits", "words"),
    [
        (FITS, "labels, those of the test among them. The test numbers are of the fit before"),
        ([*FITS[:2], replace(FITS[2], last_cutoff="2024-03-31")], "labels. The test numbers"),
        (FITS[:1], "the very model"),
        (FITS[:2], "the very model"),
    ],
    ids=["all", "all-before-the-test-labels", "none", "test"],
)
def test_what_scores_is_told_from_what_was_tested(fits, words):
    assert words in fits_text(make_report(fits=fits))


def test_offset_is_told_in_probabilities():
    assert "nothing is shifted" in base_rate_text("newest", 0.0)
    doubled = base_rate_text("shrunk", math.log(2.0))  # odds 3:7 become 6:7
    assert "30.0% becomes 46.2%" in doubled
    assert "+0.693" in doubled
