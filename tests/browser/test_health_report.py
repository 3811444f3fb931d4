"""The health report in a real browser: no error, nothing loaded, fits a phone, prints whole."""

import base64
import re

import duckdb
import pytest

from tests.health_example import PLAN_DUE, health_tables, make_warehouse
from trainer.health_report import health_facts, render_health

WIDTHS = (320, 360, 768, 1280)

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Pages by kind: one of everything, one of long names, one of nothing."""
    folder = tmp_path_factory.mktemp("health")
    long = make_warehouse(kind="act")
    name = "a_name_that_is_longer_than_any_phone_is_wide_" * 2
    for table, column in (
        ("churn_score_movers", "user_id"),
        ("churn_score_drift", "subject"),
        ("churn_event_volumes", "event_type"),
        ("churn_model_log", "reason"),
        ("churn_models", "stage_reason"),
    ):
        long.execute(f"update {table} set {column} = '{name}' || {column}")
    made = {
        "full": health_tables(make_warehouse(kind="act")),
        "long": health_tables(long),
        "none": health_tables(duckdb.connect(), registry_champion_id=None),
    }
    for kind, tables in made.items():
        html = render_health(health_facts(tables, retraining=PLAN_DUE if kind != "none" else None))
        (folder / f"{kind}.html").write_text(html, encoding="utf-8")
    return folder


@pytest.fixture
def open_page(open_url, pages):
    def open_at(kind, width, **options):
        return open_url((pages / f"{kind}.html").as_uri(), width, **options)

    return open_at


@pytest.mark.parametrize("kind", ["full", "none"])
def test_page_opens_without_a_message_and_asks_for_nothing(open_page, kind):
    driver = open_page(kind, 1280)
    assert driver.get_log("browser") == []
    requested = re.findall(
        r'"url":"((?:https?|file|wss?):[^"]+)"',
        "".join(entry["message"] for entry in driver.get_log("performance")),
    )
    assert {url for url in requested if not url.endswith(f"/{kind}.html")} == set()
    assert driver.title == "Is the churn model healthy?"


@pytest.mark.parametrize("kind", ["full", "long", "none"])
@pytest.mark.parametrize("width", WIDTHS)
def test_page_does_not_scroll_sideways(open_page, kind, width):
    driver = open_page(kind, width)
    wide = driver.execute_script(
        "return [...document.querySelectorAll('body *')].filter(e => !e.closest('.scroll, thead'))"
        ".filter(e => e.getBoundingClientRect().right > document.body.clientWidth + 0.5)"
        ".map(e => e.tagName + '.' + e.className.toString()).slice(0, 5)"
    )
    assert driver.execute_script("return document.documentElement.scrollWidth") <= width
    assert wide == []


def test_tables_are_stacked_on_a_phone_so_that_nothing_scrolls(open_page):
    driver = open_page("full", 360)
    scrolling = driver.execute_script(
        "return [...document.querySelectorAll('.scroll')].filter("
        "e => e.scrollWidth > e.clientWidth + 1).map(e => e.getAttribute('aria-label'))"
    )
    assert scrolling == []


@pytest.mark.parametrize("width", [360, 1280])
def test_text_in_charts_stays_inside_and_does_not_overlap(open_page, width):
    found = open_page("full", width).execute_script(
        "const out = []; for (const svg of document.querySelectorAll('svg.chart')) {"
        " const box = svg.getBoundingClientRect();"
        " const all = [...svg.querySelectorAll('text')].map(t => [t, t.getBoundingClientRect()]);"
        " for (const [t, r] of all) if (r.left < box.left - 1 || r.right > box.right + 1 ||"
        "  r.top < box.top - 1 || r.bottom > box.bottom + 1) out.push('outside ' + t.textContent);"
        " for (const [t, r] of all) for (const [u, s] of all) if (t !== u && r.left < s.right - 1"
        "  && s.left < r.right - 1 && r.top < s.bottom - 4 && s.top < r.bottom - 4)"
        "  out.push(t.textContent + ' on ' + u.textContent); } return out;"
    )
    assert found == []


def test_every_chart_and_sparkline_has_a_size(open_page):
    sizes = open_page("full", 360).execute_script(
        "return [...document.querySelectorAll('svg.chart, svg.spark')].filter("
        "e => !e.closest('details')).map(e => [e.getAttribute('aria-label'),"
        " e.getBoundingClientRect().width, e.getBoundingClientRect().height])"
    )
    assert len(sizes) > 15
    for name, wide, high in sizes:
        assert wide > 90, name
        assert high > 15, name


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_all_text_has_contrast(open_page, dark):
    poor = open_page("full", 1280, dark=dark).execute_script(
        "const lum = c => { const v = c.match(/[0-9.]+/g).slice(0, 3).map(n => { n = n / 255;"
        " return n <= 0.03928 ? n / 12.92 : Math.pow((n + 0.055) / 1.055, 2.4); });"
        " return 0.2126 * v[0] + 0.7152 * v[1] + 0.0722 * v[2]; };"
        "const back = e => { for (; e; e = e.parentElement) {"
        " const c = getComputedStyle(e).backgroundColor;"
        " if (!/, 0\\)$|transparent/.test(c)) return c; } return 'rgb(255, 255, 255)'; };"
        "return [...document.querySelectorAll('main *')].filter(e => !e.closest('svg')"
        " && [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim())).map(e => {"
        " const [a, b] = [lum(getComputedStyle(e).color), lum(back(e))].sort((x, y) => y - x);"
        " return [(a + 0.05) / (b + 0.05), e.textContent.trim().slice(0, 30)]; })"
        ".filter(([ratio]) => ratio < 4.5)"
    )
    assert poor == []


def test_print_shows_all_columns_and_what_is_folded(open_page):
    driver = open_page("full", 794, media="print")
    cut = driver.execute_script(
        "return [...document.querySelectorAll('table, svg.chart')].filter(e => {"
        " const card = e.closest('.card').getBoundingClientRect();"
        " return e.getBoundingClientRect().right > card.right; })"
        ".map(e => e.outerHTML.slice(0, 80))"
    )
    assert cut == []
    hidden = driver.execute_script(
        "return [...document.querySelectorAll('details table')].filter("
        "e => e.getBoundingClientRect().height < 40).length"
    )
    assert hidden == 0


def test_the_printed_page_holds_every_section(open_page, tmp_path):
    printed = open_page("full", 1280).execute_cdp_cmd(
        "Page.printToPDF", {"preferCSSPageSize": True}
    )
    content = base64.b64decode(printed["data"])
    assert content.startswith(b"%PDF")
    sizes = set(re.findall(rb"/MediaBox ?\[0 0 ([\d.]+) ([\d.]+)\]", content))
    assert len(sizes) == 1
    wide, high = (float(value) for value in sizes.pop())
    assert (wide, high) == (pytest.approx(595, abs=2), pytest.approx(842, abs=2))
    assert 5 <= content.count(b"/Type /Page\n") <= 12
