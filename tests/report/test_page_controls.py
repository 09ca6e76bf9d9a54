"""The report of the real run, in a browser: it shows the result's numbers, and each of its controls works."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from browser import Browser
from report_page import Count, ReportPage, reported, title_of
from selenium.webdriver.common.keys import Keys

COLUMNS = {
    "layer": "layer",
    "feature": "feature_number",
    "specialization": "specialization",
    "normalised": "normalised_specialization",
    "auroc": "auroc",
    "detection": "detection_auroc",
    "q": "q_value",
}
"""Column of the page -> of the result."""
MAX_FILE_BYTES = 8_000_000


@pytest.fixture(scope="module")
def features(embedded_run) -> pd.DataFrame:
    return reported(embedded_run)


@pytest.fixture(scope="module")
def opened(browser: Browser, embedded_run) -> ReportPage:
    page = ReportPage(browser, embedded_run / "report.html")
    page.open()
    return page


@pytest.fixture
def page(browser: Browser, opened) -> Iterator[ReportPage]:
    """The report, opened once for all tests; no test may cause a message in the console."""
    opened.start_over()
    yield opened
    assert browser.console() == []


def test_it_opens_from_disk_without_console_messages_or_network_requests(page, browser, embedded_run):
    page.open()
    assert browser.js("return document.body.dataset.charts") == "ready"
    assert browser.requests() == [(embedded_run / "report.html").resolve().as_uri()]
    assert (embedded_run / "report.html").stat().st_size < MAX_FILE_BYTES


def test_all_features_are_in_the_order_of_the_result_with_its_numbers(page, features):
    assert page.rows() == features.index.tolist()
    assert page.count() == Count(150, 150)
    assert page.cells("label") == features["label"].tolist()
    for column in ("auroc", "detection"):
        shown = [float(cell) if cell != "–" else np.nan for cell in page.cells(column)]
        assert np.allclose(shown, features[COLUMNS[column]].astype(float), atol=0.0051, equal_nan=True), column


def test_the_overview_names_the_best_layer_and_the_best_feature(page, browser, embedded_run, features):
    layers = pd.read_csv(embedded_run / "layer_comparison_report.csv")["layer"]
    rows = browser.texts("#layers-table tbody tr")
    assert [int(re.findall(r"\d+", row)[0]) for row in rows] == layers.tolist()
    assert len(browser.all("#checks-table tbody tr")) == len(layers)
    opposed = browser.texts("#opposed li")
    assert len(opposed) == len(layers)
    assert re.match(r"30 features fire less on financial text, \d+ of them confirmed: layer_4/opposed_30_", opposed[0])
    headline = browser.one("#headline").text
    for part in (f"layer {layers[0]}", features.index[0], features["label"].iloc[0]):
        assert part in headline
    browser.click(browser.one("#settings summary"))
    assert "max_length" in browser.one("#settings").text


def is_ordered(values: pd.Series, direction: str) -> bool:
    """Whether values are sorted in a direction, with missing ones last."""
    present = values.dropna()
    if values.iloc[: len(present)].isna().any():
        return False
    if values.name == "label":
        present = present.str.casefold().str[0]
    else:  # to the eight digits that the page and the files hold
        present = present.astype(float).map(lambda value: float(f"{value:.8g}"))
    return present.is_monotonic_increasing if direction == "ascending" else present.is_monotonic_decreasing


def test_a_column_orders_the_table_one_way_and_then_the_other(page, features):
    for name, column in (COLUMNS | {"label": "label"}).items():
        directions = [page.sort(name)]
        assert is_ordered(features.loc[page.rows(), column], directions[-1]), (name, directions)
        directions.append(page.sort(name))
        assert is_ordered(features.loc[page.rows(), column], directions[-1]), (name, directions)
        assert set(directions) == {"ascending", "descending"}, name
        assert {other for other, direction in page.directions().items() if direction != "none"} == {name}
    assert sorted(page.rows()) == sorted(features.index)


def test_filters_show_exactly_the_features_that_pass(page, features):
    flags = features["flags"].str.split("; ")
    flag = flags.explode().loc[lambda one: one != ""].mode()[0]
    word = features["label"].iloc[0].split()[-1].strip(",:")
    confirmed = features["confirmed"].astype(bool)
    by_value = {
        ("layer", "16"): features["layer"] == 16,
        ("flag", flag): flags.map(lambda own: flag in own),
        ("test", "confirmed passed"): confirmed,
        ("test", "confirmed failed"): ~confirmed,
    }
    for (name, value), passes in by_value.items():
        page.choose(name, value)
        assert page.rows() == features.index[passes].tolist(), (name, value)
        assert page.count() == Count(passes.sum(), len(features))
        page.choose(name, "")
    page.type("#filter-label", word.upper())
    passes = features["label"].str.lower().str.contains(word.lower(), regex=False)
    assert 0 < passes.sum() < len(features)
    assert page.rows() == features.index[passes].tolist()
    page.choose("layer", str(features["layer"].iloc[0]))
    assert page.rows() == features.index[passes & (features["layer"] == features["layer"].iloc[0])].tolist()
    page.type("#filter-label", "no label says this")
    assert (page.rows(), page.count()) == ([], Count(0, len(features)))


def example_texts(result: Path) -> dict[str, str]:
    """Feature -> its example passages, in lower case."""
    texts = {}
    for path in result.glob("layer_*/evidence.json"):
        content = json.loads(path.read_text())
        for one in content["features"]:
            passages = ("".join(example["tokens"]).lower() for example in one["examples"])
            texts[f"{content['layer']}/{one['feature_number']}"] = "\n".join(passages)
    return texts


def word_of_few_examples(texts: dict[str, str], labels: pd.Series) -> str:
    """The first word that is in examples of 2 to 20 features and in no label."""
    in_labels = " ".join(labels).lower()
    for word in sorted(set(re.findall(r"[a-z]{7,}", " ".join(texts.values())))):
        if word not in in_labels and 2 <= sum(word in text for text in texts.values()) <= 20:
            return word
    raise AssertionError("no word is in the examples of only a few features")


def test_the_search_finds_words_of_labels_and_of_examples(page, embedded_run, features):
    texts = example_texts(embedded_run)
    word = word_of_few_examples(texts, features["label"])
    page.type("#search", word.capitalize())
    assert page.rows() == [feature for feature in features.index if word in texts[feature]]
    of_label = features["label"].iloc[0].split()[-1].strip(",:").lower()
    page.type("#search", of_label)
    labelled = features.index[features["label"].str.lower().str.contains(of_label, regex=False)]
    assert set(labelled) <= set(page.rows())


def test_an_address_restores_filters_order_and_card(page, browser, features):
    assert page.fragment() == ""
    page.choose("layer", "22")
    page.choose("test", "confirmed passed")
    page.type("#search", "a")
    direction = page.sort("detection")
    rows = page.rows()
    assert len(rows) > 1
    assert all(row.startswith("22/") for row in rows)
    page.open_card(rows[1])
    before = (rows, page.count(), page.title(), direction, browser.js("return document.querySelector('#search').value"))
    page.open(page.fragment())
    assert page.card_is_open()
    title = page.title()
    browser.press(Keys.ESCAPE)
    search = browser.one("#search").get_property("value")
    assert (page.rows(), page.count(), title, page.directions()["detection"], search) == before
    chosen = [browser.one(f"#filter-{name}").get_property("value") for name in ("layer", "flag", "test")]
    assert chosen == ["22", "", "confirmed passed"]


def test_an_address_that_makes_no_sense_shows_a_page_that_works(page, browser, features):
    for fragment in ("feature=99/99999&sort=nothing&order=sideways", "layer=%3Cb%3E&q=%00&&==%zz&feature=16"):
        page.open(fragment)
        assert not page.card_is_open()
        assert page.count().reported == len(features)
        assert browser.console() == []


def test_a_click_opens_the_card_of_the_feature(page, browser, features):
    feature = features.index[3]
    page.open_card(feature)
    assert page.title() == title_of(features.loc[feature])
    assert page.fragment().replace("%2F", "/") == f"feature={feature}"
    assert f"{features.loc[feature, 'auroc']:.3f}" in browser.one("#card-statistics").text
    row = features.loc[feature]
    for name, column in (
        ("Selected again, % of redraws", "top_n_probability"),
        ("Activation on lexicon terms, %", "lexicon_share_input"),
        ("Activation just before them, %", "lexicon_share_output"),
    ):
        assert f"{name} {100 * row[column]:#.3g}".rstrip(".") in browser.one("#card-statistics").text
    assert browser.one("#card-histogram svg").size["height"] > 50
    assert len(browser.all("#card-examples .example")) > 4
    browser.click(browser.one("#card-close"))
    assert not page.card_is_open()
    assert page.fragment() == ""


def test_examples_show_tokens_with_the_activations_of_the_evidence(page, browser, embedded_run, features):
    layer, number = features.index[0].split("/")
    content = json.loads((embedded_run / f"layer_{layer}" / "evidence.json").read_text())
    stored = next(one for one in content["features"] if one["feature_number"] == int(number))["examples"]
    page.open_card(features.index[0])
    shown = browser.js(
        """return [...document.querySelectorAll("#card-examples .example")].map(one => [...one.querySelectorAll(
            ".token")].map(token => [token.textContent.replaceAll("↵", ""), Number(token.dataset.activation)]))"""
    )
    assert len(shown) == len(stored)
    passages = [list(zip(one["tokens"], one["activations"], strict=True)) for one in stored]
    for tokens in shown:
        assert any(contains(passage, tokens) for passage in passages), tokens


def contains(passage: list, part: list) -> bool:
    """Whether a passage contains these tokens with these activations, in sequence."""
    width = len(part)
    return any(same(passage[at : at + width], part) for at in range(len(passage) - width + 1))


def same(passage: list, part: list) -> bool:
    return all(a[0] == b[0] and np.isclose(a[1], b[1], rtol=1e-3) for a, b in zip(passage, part, strict=True))


def test_the_keyboard_opens_a_card_steps_through_the_rows_and_comes_back(page, browser, features):
    page.choose("layer", "10")
    page.sort("auroc")
    rows = page.rows()
    titles = [title_of(features.loc[row]) for row in rows]
    browser.js("arguments[0].focus()", page.link(rows[0]))
    browser.press(Keys.ENTER)
    browser.until(page.card_is_open, "Enter opens no card")
    assert page.title() == titles[0]
    keys = ["j", Keys.ARROW_RIGHT, "k", Keys.ARROW_LEFT, Keys.ARROW_LEFT]
    seen = []
    for key in keys:
        browser.press(key)
        seen.append(page.title())
    assert seen == [titles[at] for at in (1, 2, 1, 0, 0)]
    browser.press(Keys.ESCAPE)
    assert not page.card_is_open()
    assert page.focused() == page.link(rows[0])


def test_buttons_step_through_the_rows_up_to_the_last(page, browser, features):
    page.choose("layer", "28")
    rows = page.rows()[-3:]
    page.open_card(rows[0])
    for button, at in (("next", 1), ("next", 2), ("previous", 1), ("next", 2)):
        browser.click(browser.one(f"#card-{button}"))
        assert page.title() == title_of(features.loc[rows[at]])
    browser.press("j")
    assert page.title() == title_of(features.loc[rows[2]])


def test_the_back_button_closes_a_card(page, browser, features):
    page.open_card(features.index[0])
    browser.driver.back()
    browser.until(lambda: not page.card_is_open(), "the card stays open")
    browser.driver.forward()
    browser.until(page.card_is_open, "the card does not come back")


def test_a_token_under_the_pointer_shows_its_activation(page, browser, features):
    page.open_card(features.index[0])
    assert not browser.one("#tip").is_displayed()
    fires = next(one for one in browser.all("#card-examples .token") if float(one.get_attribute("data-activation")) > 0)
    browser.hover(fires)
    tip = browser.one("#tip")
    assert tip.is_displayed()
    activation = float(re.findall(r"[\d,.]+$", tip.text)[0].replace(",", ""))
    assert activation == pytest.approx(float(fires.get_attribute("data-activation")), rel=1e-3)
    browser.hover(browser.one("#card-title"))
    assert not tip.is_displayed()


def test_the_downloaded_table_is_the_one_that_is_shown(page, browser, embedded_run, features):
    browser.forget_downloads()
    page.choose("layer", "16")
    page.sort("auroc")
    rows = page.rows()
    browser.click(browser.one("#download-csv"))
    table = pd.read_csv(browser.downloaded("features.csv"))
    assert (table["layer"].astype(str) + "/" + table["feature_number"].astype(str)).tolist() == rows
    whole = pd.read_csv(embedded_run / "consolidated_top_features_all_layers.csv")
    own = whole.set_axis(features.index).loc[rows].reset_index(drop=True)
    pd.testing.assert_frame_equal(table[own.columns.tolist()], own, check_dtype=False, rtol=1e-6)
    assert set(table) == set(whole)


CHARTS_OF_POINTS = ("chart-layers", "chart-activations", "chart-density", "chart-forest")


@pytest.mark.parametrize("chart", CHARTS_OF_POINTS)
def test_a_click_on_a_point_opens_the_feature_that_the_point_names(page, browser, features, chart):
    point = browser.all(f"#{chart} .scatterlayer .trace:last-child .point")[0]
    browser.hover(point)
    label = f"#{chart} .hoverlayer .hovertext"
    browser.until(lambda: browser.texts(label), "the point names nothing")
    named = re.search(r"\d+/\d+", browser.texts(label)[0])
    assert named, browser.texts(label)
    browser.click(point)
    browser.until(page.card_is_open, "a click on a point opens no card")
    assert page.title() == title_of(features.loc[named[0]])


def test_a_click_on_a_cell_of_the_best_across_layers_opens_its_feature(page, browser, features):
    cell = browser.all("#chart-across .heatmap-label text")[0]
    number = int(cell.text)
    browser.click(cell)
    browser.until(page.card_is_open, "a click on a cell opens no card")
    assert page.title() in {title_of(row) for _, row in features[features["feature_number"] == number].iterrows()}
