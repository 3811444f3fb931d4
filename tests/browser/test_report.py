"""The report in a real browser: no error, every chart visible, fits a phone, tooltips work."""

import functools

import pytest

from tests.report_example import make_report
from trainer.report import render_report

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def report_url(tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(render_report(make_report()), encoding="utf-8")
    return path.as_uri()


@pytest.fixture
def open_report(open_url, report_url):
    return functools.partial(open_url, report_url)


@pytest.mark.parametrize("width", [390, 1200], ids=["phone", "desktop"])
def test_page_opens_without_a_console_message(open_report, width):
    driver = open_report(width)
    assert driver.get_log("browser") == []
    assert driver.title == "Churn model of a test"


@pytest.mark.parametrize("width", [390, 1200], ids=["phone", "desktop"])
def test_every_chart_has_a_size(open_report, width):
    sizes = open_report(width).execute_script(
        "return [...document.querySelectorAll('svg.chart')].map(svg => {"
        " const box = svg.getBoundingClientRect();"
        " return [svg.getAttribute('aria-label'), box.width, box.height]; })"
    )
    assert len(sizes) == 17
    for name, wide, high in sizes:
        assert wide > 250, name
        assert high > 100, name


@pytest.mark.parametrize("width", [320, 390, 768, 1200])
def test_page_does_not_scroll_sideways(open_report, width):
    driver = open_report(width)
    found = driver.execute_script("return document.documentElement.scrollWidth")
    wide = driver.execute_script(
        "return [...document.querySelectorAll('body *')].filter(e => !e.closest('.scroll'))"
        ".filter(e => e.getBoundingClientRect().right > document.body.clientWidth + 0.5)"
        ".map(e => e.tagName + '.' + e.className.toString()).slice(0, 5)"
    )
    assert found <= width
    assert wide == []


def test_tables_on_a_phone_scroll_by_themselves(open_report):
    driver = open_report(390)
    scrolls = driver.execute_script(
        "return [...document.querySelectorAll('.scroll')].some(e => e.scrollWidth > e.clientWidth)"
    )
    assert scrolls


def test_text_in_charts_stays_inside(open_report):
    outside = open_report(390).execute_script(
        "return [...document.querySelectorAll('svg.chart text')].filter(text => {"
        " const own = text.getBoundingClientRect();"
        " const box = text.ownerSVGElement.getBoundingClientRect();"
        " return own.left < box.left - 1 || own.right > box.right + 1"
        "  || own.top < box.top - 1 || own.bottom > box.bottom + 1; }).map(t => t.textContent)"
    )
    assert outside == []


def test_dark_and_light_differ_and_both_have_contrast(open_report):
    script = (
        "const s = getComputedStyle(document.body); return [s.color, s.backgroundColor].map("
        "c => { const v = c.match(/[0-9.]+/g).slice(0, 3).map(n => { n = n / 255;"
        " return n <= 0.03928 ? n / 12.92 : Math.pow((n + 0.055) / 1.055, 2.4); });"
        " return 0.2126 * v[0] + 0.7152 * v[1] + 0.0722 * v[2]; })"
    )
    ratios = []
    for dark in (False, True):
        ink, page = open_report(1200, dark=dark).execute_script(script)
        assert (ink > page) is dark
        ratios.append((max(ink, page) + 0.05) / (min(ink, page) + 0.05))
    assert min(ratios) > 7.0


def test_pointing_at_a_line_tells_its_numbers(open_report):
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.by import By

    driver = open_report(1200)
    chart = driver.find_element(By.CSS_SELECTOR, "#gain svg.chart")
    driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", chart)
    box = chart.rect
    # The plot spans x 64..436 of 460 and y 12..294 of 340; its far corner is (100 %, 100 %).
    corner = (440 / 460 - 0.5, 8 / 340 - 0.5)
    ActionChains(driver).move_to_element_with_offset(
        chart, int(corner[0] * box["width"]), int(corner[1] * box["height"])
    ).perform()
    tip = driver.find_element(By.ID, "tip")
    assert tip.is_displayed()
    assert "100.0% → 100.0%" in tip.text
    assert driver.get_log("browser") == []


def test_pointing_at_a_bar_tells_its_customers(open_report):
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.by import By

    driver = open_report(1200)
    bar = driver.find_element(By.CSS_SELECTOR, "#scores svg.chart .bar")
    driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", bar)
    ActionChains(driver).move_to_element(bar).perform()
    assert "who stayed" in driver.find_element(By.ID, "tip").text


def test_report_prints_without_losing_columns(open_report):
    driver = open_report(794, media="print")
    try:
        cut = driver.execute_script(
            "return [...document.querySelectorAll('.scroll table')].filter("
            "t => t.getBoundingClientRect().right > window.innerWidth).length"
        )
        assert cut == 0
    finally:
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
