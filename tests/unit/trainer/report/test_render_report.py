"""The report: self-contained, escaped, honest in its words, complete, and small."""

import dataclasses
import re
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest

from tests.report_example import MODEL, make_probabilities, make_report
from trainer.report import FeatureImportance, SplitFacts, render_report
from trainer.report.words import MISSING, fact_text, interval_text, tier_rows, verdict

ATTACK = "<script>alert('1')</script>\"'><img src=x onerror=alert(2)>&{{ 7*7 }}"
VOID = {"meta", "link", "br", "img", "hr", "input"}


class Page(HTMLParser):
    """Elements, text and the balance of tags."""

    def __init__(self, html):
        super().__init__()
        self.elements = []
        self.open = []
        self.texts = []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.texts.append(data)

    @property
    def text(self):
        return re.sub(r"\s+", " ", " ".join(self.texts))

    def all(self, tag, css=""):
        return [
            found
            for name, found in self.elements
            if name == tag and css in [*(found.get("class") or "").split(), ""]
        ]


@pytest.fixture(scope="module")
def run():
    return make_report()


@pytest.fixture(scope="module")
def html(run):
    return render_report(run)


@pytest.fixture(scope="module")
def page(html):
    return Page(html)


def test_tags_balance_and_ids_are_unique(page):
    assert page.open == []
    ids = [found["id"] for _, found in page.elements if "id" in found]
    assert len(ids) == len(set(ids))


def test_every_chart_of_the_issue_is_there(page):
    figures = {found["id"] for found in page.all("figure")}
    assert figures == {
        "compare-auroc",
        "compare-average-precision",
        "roc",
        "precision-recall",
        "calibration",
        "scores",
        "gain",
        "lift",
        "history-loss-0",
        "history-loss-1",
        "history-score-1",
        "slice-0-auroc",
        "slice-0-calibration-gap",
        "reliability-test-0",
        "reliability-valid-0",
        "reliability-slice-0-0",
        "reliability-slice-0-1",
    }
    assert any(found.get("id") == "confusion" for found in page.all("div"))
    assert len(page.all("svg", "chart")) == len(figures)


def test_page_loads_nothing_from_anywhere(html, page):
    for tag, found in page.elements:
        for name in ("src", "srcset", "action", "data", "poster"):
            assert name not in found, (tag, found)
        assert found.get("href", "data:,") == "data:,"
    style = html[html.index("<style>") : html.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    policy = next(found for found in page.all("meta") if "http-equiv" in found)["content"]
    assert policy.startswith("default-src 'none'")
    urls = set(re.findall(r"https?://[^\"'\s<>]+", html))
    assert urls <= {"http://www.w3.org/2000/svg"}


def test_charts_speak_to_screen_readers(page):
    for chart in page.all("svg", "chart"):
        assert chart["role"] == "img"
        assert len(chart["aria-label"]) > 10
    titles = [tag for tag, _ in page.elements if tag == "title"]
    assert len(titles) >= 1 + len(page.all("svg", "chart"))


def test_nothing_undefined_is_drawn(html):
    for chart in re.findall(r"<svg class=\"chart\".*?</svg>", html, re.DOTALL):
        assert not re.search(r"\b(nan|inf)\b", chart, re.IGNORECASE)


def test_names_and_texts_are_escaped_everywhere(run):
    labels, probabilities = make_probabilities()
    hostile = {ATTACK: probabilities[MODEL], ATTACK + "2": probabilities["recency"]}
    page = Page(
        render_report(
            make_report(
                labels,
                hostile,
                model_name=ATTACK,
                title=ATTACK,
                titles={},
                threshold_reason=ATTACK,
                warnings=[ATTACK],
                tiers=[{"name": ATTACK, "min_probability": 0.0}],
                splits=[
                    SplitFacts(
                        name=ATTACK, cutoffs=[ATTACK], num_rows=1, num_users=1, base_rate=0.5
                    )
                ],
                history=[{"stage": ATTACK, "step": step, ATTACK + "_loss": 0.1} for step in (1, 2)],
                feature_importance=[FeatureImportance(name=ATTACK, description=ATTACK, value=1.0)],
                importance_source=ATTACK,
                run_facts={ATTACK: ATTACK},
                data_facts={ATTACK: [ATTACK]},
                model_facts={ATTACK: {ATTACK: ATTACK}},
                calibration={
                    "chosen": ATTACK,
                    "reason": ATTACK,
                    "cross_fitted_log_loss": {ATTACK: 0.5},
                },
            )
        )
    )
    assert len(page.all("script")) == 1
    assert page.all("img") == []
    assert not any(name.startswith("on") for _, found in page.elements for name in found)
    assert page.text.count("alert('1')") > 20
    assert page.open == []


def test_same_data_same_page(run, html):
    assert render_report(run) == html


def test_headline_numbers_come_first(run, page):
    auroc = run.metrics[MODEL]["auroc"]
    lead = page.text[: page.text.index("Beside other models")]
    assert f"{auroc.value:.3f}" in lead
    assert f"{auroc.value:.1%} of the time (95 % interval" in lead
    assert "The base rate moved." in lead


def test_every_metric_of_every_model_is_in_the_table(run, page):
    for model in run.probabilities:
        for metric in ("auroc", "log_loss", "brier_score", "f1"):
            assert interval_text(run.metrics[model][metric])[0] in page.text
        assert run.title_of(model) in page.text


def test_facts_splits_and_features_are_shown(page):
    for expected in (
        "3,456,789",
        "0123456789abcdef",
        "torch: 2.13.0",
        "2 cutoffs, 2024-01-01 to 2024-02-01",
        "25.0%",
        "a_feature_with_a_long_name_11",
        "fitted on validation only",
    ):
        assert expected in page.text, expected


def test_large_data_makes_a_small_page():
    labels, probabilities = make_probabilities(num_rows=30_000)
    html = render_report(make_report(labels, probabilities))
    assert len(html) < 400_000
    longest = max(len(points.split(" ")) for points in re.findall(r'points="([^"]*)"', html))
    assert longest <= 300


def test_long_history_is_thinned():
    history = [{"stage": "fit", "step": step, "train_loss": 1.0} for step in range(20_000)]
    html = render_report(make_report(history=history))
    longest = max(len(points.split(" ")) for points in re.findall(r'points="([^"]*)"', html))
    assert longest <= 300


@pytest.mark.parametrize("label", [0, 1], ids=["none churned", "all churned"])
def test_one_class_still_makes_a_page(label):
    labels, probabilities = make_probabilities()
    page = Page(render_report(make_report(np.full_like(labels, label), probabilities)))
    figures = {found["id"] for found in page.all("figure")}
    assert "roc" not in figures
    assert {"calibration", "scores"} <= figures
    assert MISSING in page.text


def test_only_the_necessary_fields_make_a_page():
    bare = make_report(
        titles={},
        splits=(),
        tiers=(),
        calibration={},
        history=(),
        feature_importance=(),
        importance_source="",
        run_facts={},
        data_facts={},
        model_facts={},
        warnings=(),
        threshold_reason="",
        differences={},
    )
    page = Page(render_report(bare))
    assert page.open == []
    assert "compared with no baseline" in page.text
    assert "Training" not in page.text


@pytest.mark.parametrize(
    "entries",
    [
        [{"stage": "fit", "step": 1, "train_loss": 0.5}],
        [{"train_loss": 0.5}, {"train_loss": 0.4}],
        [{"stage": "fit", "step": 1, "train_loss": float("nan")}],
        [{"stage": "fit", "step": 1, "train_loss": None, "note": "text"}],
        [
            {"stage": "fit", "step": 1, "train_loss": 0.5},
            {"stage": "fit", "step": 2, "valid_loss": 0.5},
        ],
    ],
    ids=["one entry", "no stage or step", "nan", "none", "flat"],
)
def test_odd_histories_make_a_page(entries):
    assert Page(render_report(make_report(history=entries))).open == []


@pytest.mark.parametrize(
    ("interval", "level", "words"),
    [
        ((0.02, 0.01, 0.03), "good", "better than the best baseline"),
        ((0.02, -0.01, 0.05), "even", "about equally well"),
        ((-0.02, -0.03, -0.01), "bad", "worse than the best baseline"),
        ((0.02, float("nan"), float("nan")), "unknown", "cannot be told"),
    ],
    ids=["better", "even", "worse", "unknown"],
)
def test_verdict_follows_the_interval(run, interval, level, words):
    found = verdict(make_report(differences={"lightgbm": {"auroc": interval}}))
    assert found.level == level
    assert words in found.headline


def test_verdict_is_against_the_strongest_baseline(run):
    found = verdict(run)
    assert "LightGBM" in found.headline
    assert found.level == "good"


def test_tiers_share_out_every_customer(run):
    rows = tier_rows(run)
    assert [row["name"] for row in rows] == ["high", "medium", "low"]
    counts = [int(row["count"].replace(",", "")) for row in rows]
    assert sum(counts) == len(run.labels)
    assert counts[0] == int((np.asarray(run.probabilities[MODEL]) >= run.threshold).sum())


def test_confidence_is_the_one_used():
    page = Page(render_report(make_report(confidence=0.9)))
    assert "90 % interval" in page.text
    assert "90 %: " in page.text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, MISSING),
        (True, "yes"),
        (1234567, "1,234,567"),
        (0.123456, "0.1235"),
        ([], MISSING),
        (["a", 1000], "a, 1,000"),
        ({"b": False}, "b: no"),
    ],
)
def test_facts_are_written_for_people(value, text):
    assert fact_text(value) == text


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"metrics": {}}, "metrics lack the model"),
        ({"differences": {"unknown": {}}}, "unknown"),
        ({"labels": np.zeros(3)}, "shape"),
    ],
    ids=["metrics", "differences", "lengths"],
)
def test_parts_must_fit_together(run, overrides, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(run, **overrides)


def test_evaluation_and_report_import_no_torch_and_no_lightgbm():
    code = (
        "import sys, trainer.evaluate, trainer.report; "
        "print([m for m in ('torch', 'lightgbm', 'sklearn', 'scipy', 'dbt') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_segments_are_told_with_intervals_and_small_ones_without_numbers(run, page):
    assert "By segment" in page.text
    assert "too small to measure: 10 users, 100 needed" in page.text
    segment = run.slices["by"]["tenure"]["segments"][0]
    auroc = segment["metrics"]["auroc"]
    assert f"{auroc['value']:.3f} {auroc['low']:.3f} to {auroc['high']:.3f}" in page.text
    gap = segment["metrics"]["calibration_gap"]
    assert f"{gap['value']:+.3f} {gap['low']:+.3f} to {gap['high']:+.3f}" in page.text
    assert "under 30 & new" in page.text
    slope = run.reliability["test"]["cutoffs"][0]["reliability"]["slope"]
    assert f"slope {slope['value']:.2f} ({slope['low']:.2f} to {slope['high']:.2f})" in page.text


def test_without_segments_there_is_no_such_part():
    page = Page(render_report(make_report(slices={}, reliability={})))
    assert "By segment" not in page.text
    assert "Reliability by cutoff" not in page.text
