"""The part of the report on effects, in a browser: its numbers, its drawing, its card, and its accessibility."""

import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from browser import DESK, PHONE, Browser, Screen
from made_effects import MadeTaskEffect, made_effects, publish_made
from report_page import ReportPage

from stratalens.hookpoint import Hookpoint
from stratalens.report import load_result

HOSTILE = "<img src=x onerror=alert(1)>"
SCREENS = {"desk": DESK, "phone": PHONE}


@pytest.fixture(scope="module")
def directory(finished, tmp_path_factory) -> Path:
    """A result with effects on its own text and on another, in which some text is HTML; tests must not change it."""
    made = Path(shutil.copytree(finished, tmp_path_factory.mktemp("effects") / "out"))
    effects = made_effects(load_result(made), (0.0132, 0.0011))
    facts = dataclasses.replace(effects.facts, notes=[HOSTILE], warnings=[f"warned {HOSTILE}"])
    tasks = {Hookpoint(0): [MadeTaskEffect(HOSTILE, 31, -0.41, None, True)._asdict()]}
    publish_made(made, dataclasses.replace(effects, facts=facts, tasks=tasks))
    publish_made(made, made_effects(load_result(made), (0.0004, 0.02), name="newswire", ablated=1))
    return made


@pytest.fixture
def page(browser: Browser, directory) -> Iterator[ReportPage]:
    """The report, not yet opened; no test may cause a message in the console."""
    yield ReportPage(browser, directory / "report.html")
    assert browser.console() == []


@pytest.fixture(scope="module")
def features(directory) -> pd.DataFrame:
    rows = pd.read_csv(directory / "feature_effects.csv")
    return rows.set_axis(
        [f"{layer}/{number}" for layer, number in zip(rows["layer"], rows["feature_number"], strict=True)]
    )


def test_layers_are_ordered_by_effect_with_their_verdicts_and_numbers(page, browser):
    page.open()
    own, other = browser.js(
        """return [...document.querySelectorAll(".effects-table")].map(
            table => [...table.tBodies[0].rows].map(row => [...row.cells].map(cell => cell.innerText.trim())))"""
    )
    assert [row[0] for row in own] == ["0", "2"]
    assert [row[0] for row in other] == ["2", "0"]
    assert own[0][1:6] == [
        "the domain loses more",
        own[0][2],
        "0.017\n0.014 to 0.019",
        "0.0033\n0.0012 to 0.0054",
        "0.013\n0.011 to 0.015",
    ]
    assert own[0][7] == "0.013\n0.010 to 0.015\nrank 1 of 21, p 0.002"
    assert own[1][1] == "no difference shown"
    assert browser.one("#effects .lead").text.startswith(
        "The model needs layer 0 most for financial text: without its "
    )


def test_the_drawing_has_points_and_bands_inside_its_cell_where_the_numbers_are(page, browser):
    page.open()
    tracks = browser.js(
        """return [...document.querySelectorAll(".track")].map(track => {
            const box = track.getBoundingClientRect();
            const at = name => { const own = track.querySelector(name).getBoundingClientRect();
                return [(own.left - box.left) / box.width, (own.right - box.left) / box.width]; };
            return {zero: at(".zero"), point: at(".point"), interval: at(".interval"), random: at(".random"),
                    shown: track.querySelector(".point").classList.contains("shown"),
                    told: track.getAttribute("aria-label")}; })"""
    )
    assert [track["shown"] for track in tracks] == [True, False, True, False]
    for track in tracks:
        for name in ("zero", "interval", "random"):
            assert -0.001 <= track[name][0] <= track[name][1] <= 1.01, (name, track)
        middle = sum(track["point"]) / 2
        assert track["interval"][0] < middle < track["interval"][1]
        assert track["random"][0] < track["zero"][0] < track["random"][1]
    assert tracks[0]["point"][0] > tracks[0]["random"][1]
    assert tracks[0]["told"] == (
        "difference 0.013; random directions −0.0021 to 0.0021; matched latents −0.0021 to 0.0021"
    )


def test_text_that_is_html_is_shown_as_it_is(page, browser):
    page.open()
    assert browser.all("#effects img") == []
    assert HOSTILE in browser.one("#effects .tasks-table").text
    assert browser.one("#effects ul.warnings").text == f"warned {HOSTILE}"
    assert HOSTILE in browser.one("#effects ul.note").text


def test_the_table_has_a_column_a_badge_and_a_filter(page, browser, features):
    page.open()
    rows = page.rows()
    shown = dict(zip(rows, page.cells("effect"), strict=True))
    assert {name for name, text in shown.items() if text != "–"} == set(features.index)
    for name, row in features.iterrows():
        assert float(shown[name].replace("−", "-")) == pytest.approx(row["difference"], rel=0.06), name
    badges = dict(zip(rows, page.cells("claims"), strict=True))
    for name, row in features.iterrows():
        assert ("causal" if row["effect"] == "moves the domain" else row["effect"]) in badges[name]
    page.sort("effect")
    ablated = [text for text in page.cells("effect") if text != "–"]
    assert page.cells("effect")[: len(ablated)] == ablated
    page.choose("test", "causal passed")
    assert set(page.rows()) == set(features.index[features["effect"] == "moves the domain"])


def test_the_card_says_what_removing_the_feature_does_on_each_text(page, browser, features):
    page.open()
    name = features.index[features["effect"] == "moves everything"][0]
    page.open_card(name)
    lines = browser.texts("#card-effects li")
    assert lines[0].startswith("Effect: moves everything: without it the model predicts general text worse as well")
    assert lines[1].startswith(
        "Without it the loss changes by 0.0061 nats a token (0.0055 to 0.0067) on financial text"
    )
    assert lines[-1].startswith("Effect on newswire: ")
    assert "Loss without it, domain less general" in browser.one("#card-statistics").text


def test_the_card_of_a_feature_that_was_not_removed_says_so(page, browser, features):
    page.open()
    left = next(name for name in page.rows() if name not in features.index)
    page.open_card(left)
    assert browser.texts("#card-effects li")[0].startswith(
        "Effect: not removed by itself yet; stratalens effect RESULT"
    )


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("screen", SCREENS.values(), ids=SCREENS)
def test_no_rule_of_accessibility_is_broken_seriously(page, browser, screen: Screen, theme):
    page.open(screen=screen)
    browser.system_theme(theme)
    browser.js("document.querySelectorAll('details').forEach(own => { own.open = true; })")
    assert browser.violations() == []
    assert page.width_beyond(screen) == 0


def test_the_glossary_explains_the_words(page, browser):
    page.open()
    terms = browser.texts(".glossary dt")
    for term in ("Ablation", "Next-token loss, nats", "KL divergence", "Attribution", "Control", "Matched control"):
        assert term in terms


def test_a_result_without_effects_has_no_such_section_and_no_such_column(browser, finished):
    page = ReportPage(browser, finished / "report.html")
    page.open()
    assert browser.all("#effects") == []
    assert browser.all("[data-sort=effect]") == []
    assert "Ablation" not in browser.texts(".glossary dt")
    assert browser.console() == []
