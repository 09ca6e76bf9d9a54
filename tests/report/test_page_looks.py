"""How the report of the real run looks: light and dark, on a desktop, a phone and paper; and its accessibility."""

import re
from collections.abc import Iterator

import pytest
from browser import DESK, PHONE, Browser, Screen
from report_page import ReportPage, reported, title_of
from selenium.webdriver.common.keys import Keys

SCREENS = {"desk": DESK, "phone": PHONE}
MAX_LAYOUT_SHIFT = 0.1
"""The limit of a good page in web.dev's Core Web Vitals."""
MIN_TARGET_PIXELS = 24
"""CSS pixels, by WCAG 2.2, 2.5.8."""


@pytest.fixture
def page(browser: Browser, embedded_run) -> Iterator[ReportPage]:
    """The report, not yet opened; no test may cause a message in the console."""
    yield ReportPage(browser, embedded_run / "report.html")
    assert browser.console() == []


@pytest.fixture(scope="module")
def opened(browser: Browser, embedded_run) -> ReportPage:
    """The report, opened once for the tests that do not change it."""
    page = ReportPage(browser, embedded_run / "report.html")
    page.open()
    return page


def brightness(colour: str) -> float:
    """Mean of red, green and blue, from 0 to 1, of a CSS colour such as `rgb(0, 0, 0)`."""
    parts = [float(part) for part in re.findall(r"[\d.]+", colour)]
    assert colour.startswith("rgb"), colour
    return sum(parts[:3]) / 3 / 255


def bright(browser: Browser) -> float:
    return brightness(browser.js("return getComputedStyle(document.body).backgroundColor"))


def test_the_button_changes_the_theme_and_says_to_what(page, browser):
    page.open()
    assert bright(browser) > 0.8
    for theme, dark in (("dark", True), ("light", False), ("dark", True)):
        button = browser.one("#theme")
        assert theme in button.get_attribute("aria-label")
        browser.click(button)
        assert (bright(browser) < 0.3) == dark
        assert browser.js("return document.documentElement.dataset.theme") == theme


def test_the_theme_follows_the_system_until_the_button_is_pressed(page, browser):
    page.open()
    browser.system_theme("dark")
    assert browser.js("return document.documentElement.dataset.theme") is None
    assert bright(browser) < 0.3
    browser.click(browser.one("#theme"))
    assert bright(browser) > 0.8
    browser.system_theme("light")
    browser.system_theme("dark")
    assert bright(browser) > 0.8


def test_charts_are_redrawn_in_the_colours_of_the_theme(page, browser):
    def text_colour() -> str:
        return browser.js("return getComputedStyle(document.querySelector('#chart-layers .xtick text')).fill")

    page.open()
    before = text_colour()
    browser.click(browser.one("#theme"))
    browser.until(lambda: text_colour() != before, "the charts keep the text colour of the other theme")


@pytest.mark.parametrize("screen", SCREENS)
def test_no_rule_of_accessibility_is_broken_seriously(page, browser, embedded_run, screen):
    feature = reported(embedded_run).query("layer == 16").index[0]
    page.open("layer=16", SCREENS[screen])
    browser.js("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    assert browser.violations() == []
    browser.system_theme("dark")
    assert browser.violations("color-contrast") == []
    page.open_card(feature)
    assert browser.violations("color-contrast") == []
    browser.system_theme("light")
    assert browser.violations() == []
    browser.press(Keys.ESCAPE)
    page.type("#search", "no feature says this")
    assert browser.violations() == []


def test_the_keyboard_starts_at_a_link_to_the_features_and_its_focus_is_seen(page, browser):
    page.open()
    browser.press(Keys.TAB)
    first = page.focused()
    assert "Skip" in first.text
    assert first.rect["x"] >= 0
    browser.press(Keys.ENTER)
    assert page.fragment().startswith("features")
    browser.press(Keys.TAB)
    assert browser.js("return document.querySelector('#features').contains(document.activeElement)")
    outline = browser.js("return getComputedStyle(document.activeElement).outlineStyle")
    assert outline != "none"


def test_on_a_phone_nothing_is_wider_than_the_screen_and_a_card_is_usable(page, browser, embedded_run):
    features = reported(embedded_run)
    page.open(screen=PHONE)
    assert page.width_beyond(PHONE) == 0
    page.open_card(features.index[0])
    assert page.title() == title_of(features.iloc[0])
    assert browser.js("const card = document.querySelector('#card'); return card.scrollWidth - card.clientWidth") <= 0
    for name in ("previous", "next", "close"):
        button = browser.one(f"#card-{name}").rect
        assert 0 <= button["x"] <= button["x"] + button["width"] <= PHONE.width, name
        assert min(button["width"], button["height"]) >= MIN_TARGET_PIXELS, name
    browser.click(browser.one("#card-next"))
    assert page.title() == title_of(features.iloc[1])
    browser.hover(browser.all("#card-examples .example")[-1])
    assert browser.one("#card-close").is_displayed()
    browser.click(browser.one("#card-close"))
    assert not page.card_is_open()
    assert page.width_beyond(PHONE) == 0


def test_the_page_fits_windows_of_any_width_and_follows_their_changes(page, browser):
    page.open()
    for width in (1920, 320, 1024, 768):
        screen = Screen(width, 800)
        browser.resize(screen)
        browser.until(lambda: page.width_beyond(screen) == 0, f"the page stays wider than {width} pixels")  # noqa: B023


ON_PAPER = """const box = (one) => one.getBoundingClientRect();
const drawn = (selector) => [...document.querySelectorAll(selector)].filter((one) => box(one).height > 0).length;
const cut = (selector) => [...document.querySelectorAll(selector)].filter(
    (one) => one.scrollHeight > one.clientHeight + 1 && getComputedStyle(one).overflowY !== "visible").length;
"""


def test_on_paper_are_all_rows_and_no_controls(page, browser, embedded_run):
    reported_features = reported(embedded_run).index.tolist()
    page.open()
    assert len(page.drawn_rows()) < len(reported_features), "all rows are there before printing, so this tests nothing"
    script = "return [drawn('#feature-table tbody tr'), cut('#table-scroll'), drawn('#filters, #theme, #download-csv')]"
    rows, cut, controls = browser.on_paper(ON_PAPER + script)
    assert page.drawn_rows() == reported_features
    assert (rows, cut, controls) == (len(reported_features), 0, 0)


def test_on_paper_no_chart_is_larger_than_its_box(page, browser):
    page.open()
    script = """const height = (one) => box(one).height;
    const drawing = (one) => Math.max(...[...one.querySelectorAll("svg")].map(height));
    return [...document.querySelectorAll(".chart")].map((one) => [one.id, height(one), drawing(one)])"""
    charts = browser.on_paper(ON_PAPER + script)
    assert len(charts) == 5
    assert [name for name, height, drawn in charts if drawn > height + 1] == []


@pytest.mark.parametrize("by", ["button", "system"])
def test_a_dark_page_is_printed_as_ink_on_white(page, browser, by):
    page.open()
    if by == "button":
        browser.click(browser.one("#theme"))
    else:
        browser.system_theme("dark")
    style = "getComputedStyle(document.querySelector(selector)).getPropertyValue(property)"
    script = f"""const of = (selector, property) => {style};
    return [of("body", "background-color"), of("#headline", "color"), of("#chart-layers .xtick text", "fill")]"""
    background, text, chart = map(brightness, browser.on_paper(script))
    assert background > 0.9
    assert text < 0.5
    assert chart < 0.5


def test_what_is_printed_of_an_open_card_is_the_whole_card(page, browser, embedded_run):
    page.open(f"feature={reported(embedded_run).index[0]}")
    all_examples = len(browser.all("#card-examples .example"))
    script = "return [drawn('.example'), cut('#card'), drawn('#card-close, #feature-table')]"
    examples, cut, others = browser.on_paper(ON_PAPER + script)
    assert (examples, cut, others) == (all_examples, 0, 0)
    assert browser.on_paper(ON_PAPER + "return box(document.querySelector('#card')).top") >= 0


SHIFT = """const done = arguments[0];
let total = 0;
new PerformanceObserver(list => list.getEntries().forEach(one => { total += one.value; }))
    .observe({type: "layout-shift", buffered: true});
setTimeout(() => done(total), 150);"""


@pytest.mark.parametrize("screen", SCREENS)
def test_nothing_jumps_while_the_page_loads(page, browser, screen):
    page.open(screen=SCREENS[screen])
    assert browser.js_later(SHIFT) < MAX_LAYOUT_SHIFT
    browser.js("document.querySelector('#overview').style.marginTop = '300px'")
    assert browser.js_later(SHIFT) > MAX_LAYOUT_SHIFT, "the measurement misses a real shift"
