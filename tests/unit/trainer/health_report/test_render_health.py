"""The page: self-contained, escaped, accessible, and honest where something is missing."""

import re
from html.parser import HTMLParser

import duckdb
import pytest

from tests.health_example import (
    CHAMPION,
    NEWEST_CUTOFF,
    PLAN_DUE,
    PLAN_LATER,
    health_tables,
    make_warehouse,
)
from trainer.errors import ReportError
from trainer.health_report import health_facts, render_health, write_page
from trainer.health_report.texts import points, ticked

ATTACK = "<script>alert('1')</script>\"'><img src=x onerror=alert(2)>&{{ 7*7 }}"
VOID = {"meta", "link", "br", "img", "hr", "input"}
SECTIONS = ["outcomes", "base-rates", "drift", "scores", "volumes", "movers", "shadows", "models",
            "retraining"]  # fmt: skip


class Page(HTMLParser):
    """Elements, text and the balance of tags."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.open, self.texts = [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes), list(self.open)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes), list(self.open)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.texts.append(data)

    @property
    def text(self):
        return re.sub(r"\s+", " ", " ".join(self.texts))

    def all(self, tag):
        return [attributes for name, attributes, _ in self.elements if name == tag]


def render(connection, *, plan=PLAN_LATER, users=20, **fields):
    tables = health_tables(connection, users=users, **fields)
    return render_health(health_facts(tables, retraining=plan))


@pytest.fixture(scope="module")
def html():
    return render(make_warehouse(kind="act"), plan=PLAN_DUE)


@pytest.fixture(scope="module")
def page(html):
    return Page(html)


def test_sections_stand_in_order_and_every_link_leads_to_one(page):
    ids = [found["id"] for _, found, _ in page.elements if "id" in found]
    assert len(ids) == len(set(ids))
    assert [name for name in ids if name in SECTIONS] == SECTIONS
    targets = {found["href"] for found in page.all("a")}
    assert targets
    assert {target.removeprefix("#") for target in targets} <= set(ids)
    assert page.open == []


def test_page_loads_nothing_and_runs_nothing(html, page):
    for tag, found, _ in page.elements:
        assert tag not in ("script", "iframe", "img", "object"), found
        assert not any(name.startswith("on") for name in found)
        for name in ("src", "srcset", "action", "data", "poster"):
            assert name not in found
    style = html[html.index("<style>") : html.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    policy = next(found for found in page.all("meta") if "http-equiv" in found)["content"]
    assert policy.startswith("default-src 'none'")
    assert set(re.findall(r"https?://[^\"'\s<>]+", html)) <= {"http://www.w3.org/2000/svg"}


def test_tables_have_captions_and_heads(html, page):
    tables = len(page.all("table"))
    assert tables >= 9
    assert len(page.all("caption")) == tables
    scopes = [found.get("scope") for found in page.all("th")]
    assert set(scopes) == {"col", "row"}
    for found in page.all("div"):
        if found.get("role") == "region":
            assert found["aria-label"]
            assert found["tabindex"] == "0"


def test_charts_have_a_text_in_their_place(page):
    charts = [found for found in page.all("svg") if "chart" in found.get("class", "")]
    assert len(charts) == 7
    for found in page.all("svg"):
        assert found.get("aria-hidden") == "true" or len(found["aria-label"]) > 10


def test_severity_and_level_are_words_and_not_colours_alone(page):
    text = page.text
    for word in ("act", "look", "fine", "error", "warning", "riskier", "due"):
        assert re.search(rf"\b{word}\b", text), word


def test_everything_that_users_wrote_is_escaped():
    connection = make_warehouse()
    quoted = ATTACK.replace("'", "''")
    for table, column in (
        ("churn_score_movers", "user_id"),
        ("churn_score_movers", "main_cause"),
        ("churn_score_drift", "subject"),
        ("churn_event_volumes", "event_type"),
        ("churn_model_log", "reason"),
        ("churn_model_log", "moved_by"),
        ("churn_models", "stage_reason"),
        ("churn_models", "model_kind"),
        ("churn_scores", "risk_tier"),
        ("churn_scores_current", "risk_tier"),
    ):
        connection.execute(f"update {table} set {column} = '{quoted}'")
    plan = {**PLAN_DUE, "reasons": [ATTACK],
            "checks": [{**PLAN_DUE["checks"][0], "name": ATTACK, "message": ATTACK}]}  # fmt: skip
    html = render(connection, plan=plan)
    page = Page(html)
    assert page.open == []
    assert page.all("img") == page.all("script") == []
    assert "49" not in re.findall(r"&amp;(\d+)", html)
    assert "alert" in page.text


def test_the_same_data_give_the_same_page():
    assert render(make_warehouse()) == render(make_warehouse())


def test_lift_is_said_in_words(page):
    assert re.search(r"Of the 10 % most at risk on 2026-03-02, \d\d% churned; of all", page.text)


def test_what_is_missing_says_what_to_run():
    page = Page(render(duckdb.connect(), plan=None, registry_champion_id=None))
    assert page.open == []
    assert page.text.count("has not been built yet. To fill it, run dbt build") == 8
    assert "churn-train run --if-due" in page.text
    assert page.all("table") == []


def test_the_first_day_says_what_comes_next():
    page = Page(render(make_warehouse(kind="empty"), plan=None, registry_champion_id=None))
    assert "No model has been packaged yet. To fill it, run churn-train run" in page.text
    assert "No score has been given yet" in page.text
    assert page.text.count("churn-train run && dbt build") == 5  # nothing else would fill them
    assert "No model is in service: run churn-train run , then dbt build" in page.text


def test_a_model_whose_first_scores_have_not_matured():
    connection = make_warehouse()
    for table in ("churn_model_performance", "churn_calibration_bins", "churn_score_outcomes"):
        connection.execute(f"delete from {table}")
    connection.execute("update churn_base_rate_changes set observed_base_rate = null")
    text = Page(render(connection)).text
    assert "the days that the first ones speak of end on 2026-04-20" in text
    assert "What happened is known from 2026-04-20 on" in text


@pytest.mark.parametrize("column", ["auroc", "average_precision", "lift_top_decile"])
def test_a_number_without_a_value_is_a_dash(column):
    connection = make_warehouse()
    connection.execute(f"update churn_model_performance set {column} = null")
    assert Page(render(connection)).open == []


def test_one_cutoff_is_enough_for_every_chart():
    connection = make_warehouse()
    for table in ("churn_model_performance", "churn_base_rate_changes"):
        connection.execute(
            f"delete from {table} where cutoff_date <> date '2026-03-02' "
            f"or bundle_id <> '{CHAMPION}'"
        )
    connection.execute(f"delete from churn_score_drift where cutoff_date < date '{NEWEST_CUTOFF}'")
    assert len(re.findall(r'<svg class="chart"', render(connection))) == 7


def test_users_are_left_out_when_none_are_wanted():
    html = render(make_warehouse(), users=0)
    assert "customer-0" not in html
    assert "--users 0" in html
    assert "what the customer did" in html


def test_a_page_of_many_subjects_stays_small():
    connection = make_warehouse()
    connection.execute(
        "insert into churn_score_drift by name select s.*  replace (s.subject || '-' || n.range "
        "as subject) from churn_score_drift as s, range(40) as n where s.subject_type = 'token'"
    )
    html = render(connection)
    assert len(html) < 1_000_000
    assert "more of" in html


def test_points_have_a_sign_and_a_true_minus():
    assert points(0.0123) == "+1.2"
    assert points(-0.0123) == "\N{MINUS SIGN}1.2"
    assert points(None) == points(float("nan")) == "\N{EN DASH}"


def test_ticks_become_code_and_the_rest_is_escaped():
    assert str(ticked("run `a <b>` at 2026-03-02 & go")) == (
        'run <code>a &lt;b&gt;</code> at <span class="date">2026-03-02</span> &amp; go'
    )


def test_a_page_is_written_whole_and_a_place_that_cannot_be_written_is_named(tmp_path):
    write_page(tmp_path / "new" / "page.html", "<p>")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["page.html"]
    (tmp_path / "file").write_text("")
    with pytest.raises(ReportError, match="choose another place with --out"):
        write_page(tmp_path / "file" / "page.html", "<p>")
