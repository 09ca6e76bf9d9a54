"""Whatever texts, names and labels contain, the page shows it as text: nothing runs, breaks or is missing."""

import csv
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from browser import DESK, PHONE, Browser
from finished_result import (
    sentences,
)
from report_page import ReportPage, reported
from selenium.webdriver.common.keys import Keys
from threads import one_thread

from stratalens.cli.main import main
from stratalens.corpus.reading.cleaning import clean
from stratalens.corpus.reading.notes import ReadingNotes
from stratalens.report.formats import plain_cell

pytestmark = pytest.mark.usefixtures("own_environment")

RUN_ME = "window.pwned=1"
HOSTILE_TEXTS = [
    f"<script>{RUN_ME};alert(1)</script>",
    f"</script><script>{RUN_ME}</script>",
    f"<img src=x onerror={RUN_ME}>",
    f'"\' onmouseover="{RUN_ME}" x=\'',
    f"`${{{RUN_ME}}}`",
    f"javascript:{RUN_ME}",
    "<!-- <b>bold</b> ]]> &lt;b&gt; &amp;",
    "{{ 7*7 }} {% raw %} %{x} ${7*7} #{7*7} $x_1$",
    "line\u2028paragraph\u2029next\u0085end",
    "nul\0bell\x07escape\x1b[2J delete\x7f end",
    "\u202emirrored \u2066isolated\u2069 שלום مرحبا \u200f",
    "👩‍👩‍👧‍👦 🏦💶 e\u0301 \ufeff \u200b",
    "=1+1 +1 -1 @SUM(A1) \t\r\n",
    "</style></title></textarea><svg onload=" + RUN_ME + ">",
]
LONG_WORD = "Donaudampfschiff" * 6400
"""100 kB without a space."""
FOREIGN = "img, script, b, iframe, object, embed, style, link, meta, form"
"""Elements that no text may turn into."""


def corpus(folder: Path, side: str) -> str:
    """Documents that each contain hostile text among ordinary words, in a file whose path is hostile as well."""
    words = {"domain": "loan bank rate bond price", "general": "river stone bird cloud song"}[side]
    rows = [
        {"id": f"{side}{i}{text}", "text": f"No. {i}: {words} {text} {words}"}
        for i, text in enumerate([*HOSTILE_TEXTS, *HOSTILE_TEXTS, *([LONG_WORD] if side == "domain" else [])])
    ]
    path = folder / "x<" / f"script><img src=x onerror={RUN_ME}>\"'`{{{{ 7*7 }}}}\n\u202e {side}.jsonl"
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture(scope="module")
def hostile(tiny_model, tiny_saes, tmp_path_factory) -> Path:
    """The result of a run on hostile text at hostile paths, with hostile labels."""
    folder = tmp_path_factory.mktemp("hostile")
    model = shutil.copytree(tiny_model, folder / f"<img src=x onerror={RUN_ME}> model")
    output = folder / f"<b>{{{{ 7*7 }}}} '\"<img src=x onerror={RUN_ME}>"
    command = [
        *("analyze", "--quiet", "--base_model", str(model), "--sae_model", str(tiny_saes), "--allow_poor_fit"),
        *("--domain_data", corpus(folder, "domain"), "--general_data", corpus(folder, "general")),
        *("--output_dir", str(output), "--dtype", "float32", "--top_n", "10", "--max_length", "1024"),
    ]
    with one_thread():
        assert main(command) == 0
    table = pd.read_parquet(output / "features.parquet")
    labels = [f"{HOSTILE_TEXTS[at % len(HOSTILE_TEXTS)]} {at}" for at in range(len(table) - 1)]
    table.assign(label=[LONG_WORD, *labels], label_note=HOSTILE_TEXTS[0]).to_parquet(
        output / "features.parquet", index=False
    )
    assert main(["report", str(output), "--quiet"]) == 0
    return output


@pytest.fixture(scope="module")
def opened(browser: Browser, hostile) -> ReportPage:
    page = ReportPage(browser, hostile / "report.html")
    page.open()
    assert browser.requests() == [page.path.resolve().as_uri()]
    return page


@pytest.fixture
def page(browser: Browser, opened) -> Iterator[ReportPage]:
    """The hostile report, opened once for all tests; no test may make any of its text run as code."""
    opened.start_over()
    yield opened
    assert browser.js("return window.pwned") is None
    assert browser.console() == []
    assert [url for url in browser.requests() if not url.startswith("file:")] == []


def stored_examples(result: Path, layer: int, feature: int) -> list[str]:
    content = json.loads((result / f"layer_{layer}" / "evidence.json").read_text())
    own = next(one for one in content["features"] if one["feature_number"] == feature)
    return ["".join(example["tokens"]) for example in own["examples"]]


def shown_examples(browser: Browser) -> list[str]:
    """Texts of the examples of the open card, whole passages without the marks of line ends."""
    browser.js("document.querySelectorAll('#card-examples button').forEach(one => one.click())")
    return browser.js(
        """return [...document.querySelectorAll("#card-examples .example")].map(one => [...one.querySelectorAll(
            ".token")].map(token => token.textContent.replaceAll("↵", "")).join(""))"""
    )


def test_examples_show_hostile_text_as_it_was_read(page, browser, hostile):
    seen = ""
    for feature in reported(hostile).index[:12]:
        page.open_card(feature)
        texts = shown_examples(browser)
        assert sorted(texts) == sorted(stored_examples(hostile, *map(int, feature.split("/")))), feature
        assert browser.all(f"#card-examples :is({FOREIGN})") == []
        seen += "\n".join(texts)
        browser.press(Keys.ESCAPE)
    read = [clean(text, "", ReadingNotes()) for text in HOSTILE_TEXTS]
    assert [text for text in read if text not in seen] == []
    assert LONG_WORD[:500] in seen


def test_hostile_labels_are_text_in_table_card_and_headline(page, browser, hostile):
    features = reported(hostile)
    assert page.rows() == features.index.tolist()
    for cell, label in zip(page.cells("label"), features["label"], strict=True):
        shown = cell.removesuffix("…").replace("↵", "\n").replace("⇥", "\t")
        assert label.startswith(shown), label[:100]
        assert len(shown) >= min(len(label), 60)
    assert browser.all(f"#feature-table :is({FOREIGN})") == []
    assert browser.all(f"main :is({FOREIGN}):not(#filters, #feature-table *)") == []
    for feature in features.index[:15]:
        page.open_card(feature)
        assert browser.all(f"#card :is({FOREIGN})") == []
        browser.press(Keys.ESCAPE)


def test_names_of_files_and_models_are_text_and_not_templates(page, browser, hostile):
    browser.js("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    text = browser.js("return document.querySelector('#settings').textContent")
    record = json.loads((hostile / "run.json").read_text())
    for name in (record["settings"]["base_model"], "{{ 7*7 }}", f"onerror={RUN_ME}"):
        assert name in text
    assert browser.all(f"#overview :is({FOREIGN})") == []
    assert "<img" in browser.js("return document.title") or "<img" in browser.one("h1").text


@pytest.mark.parametrize("screen", [DESK, PHONE])
def test_nothing_is_wider_than_the_window(page, browser, hostile, screen):
    page.open(screen=screen)
    assert page.width_beyond(screen) == 0
    longest = reported(hostile)["label"].str.len().idxmax()
    for feature in (longest, page.drawn_rows()[0]):
        page.open(f"feature={feature}", screen)
        shown_examples(browser)
        assert page.width_beyond(screen) == 0
        beyond = "const card = document.querySelector('#card'); return card.scrollWidth - card.clientWidth"
        assert browser.js(beyond) <= 0, feature


def test_pointing_at_hostile_tokens_and_points_runs_nothing(page, browser, hostile):
    browser.hover(browser.all("#chart-forest .trace:last-child .point")[0])
    browser.until(lambda: browser.texts("#chart-forest .hovertext"), "the point names nothing")
    assert browser.all(f".hoverlayer :is({FOREIGN})") == []
    assert browser.all("#chart-forest :is(img, script, iframe, a)") == []
    page.open_card(page.drawn_rows()[0])
    tokens = browser.all("#card-examples .token:not([data-activation='0'])")
    for token in [one for one in tokens if one.text.strip().isalnum()][:5]:
        browser.hover(token)
        assert browser.one("#tip").is_displayed()
        assert browser.all(f"#tip :is({FOREIGN})") == []


def test_a_search_for_hostile_text_finds_it_and_is_kept_in_the_address(page, browser):
    search = """const field = document.querySelector("#search");
    field.value = arguments[0]; field.dispatchEvent(new Event("input", {bubbles: true}))"""
    for query in (HOSTILE_TEXTS[0], HOSTILE_TEXTS[1], "👩‍👩‍👧‍👦", "שלום", "{{ 7*7 }}", "\\", ".*"):
        browser.js(search, query)
        rows, fragment = page.rows(), page.fragment()
        assert bool(rows) == (query in "".join(HOSTILE_TEXTS)), query
        page.start_over()
        page.go(fragment)
        assert page.rows() == rows, query
        assert browser.one("#search").get_property("value") == query


def test_the_downloaded_table_holds_no_formula_and_no_control_character(page, browser, hostile):
    browser.forget_downloads()
    browser.click(browser.one("#download-csv"))
    with browser.downloaded("features.csv").open(newline="", encoding="utf-8") as stream:
        downloaded = [row["label"] for row in csv.DictReader(stream)]
    labels = reported(hostile)["label"]
    assert any(label.startswith("=") for label in labels)
    assert any("\x1b" in label for label in labels)
    assert downloaded == [plain_cell(label) for label in labels]


def test_without_examples_the_page_holds_no_sentence_and_says_so(browser, finished_without_examples, sources):
    opened = ReportPage(browser, finished_without_examples / "report.html")
    opened.open()
    opened.open_card(opened.drawn_rows()[0])
    assert browser.all("#card-examples .example") == []
    assert "without examples" in browser.one("#card").text
    text = browser.js("return document.documentElement.textContent") + opened.path.read_text()
    assert [run for run in sentences(sources) if run in text] == []
    assert browser.console() == []
