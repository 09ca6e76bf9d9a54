"""Use `report.html` as a reader does, and read what the page then shows."""

import re
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from browser import DESK, Browser, Screen
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

ROWS = "#feature-table tbody tr"


class Count(NamedTuple):
    """How many features the page says that it shows."""

    shown: int
    reported: int


class ReportPage:
    """An opened report."""

    def __init__(self, browser: Browser, path: Path):
        self.browser = browser
        self.path = path

    def open(self, fragment: str = "", screen: Screen = DESK) -> None:
        self.browser.open(self.path, fragment, screen)
        self.browser.until(lambda: self.browser.js("return document.body.dataset.charts"), "the charts are not drawn")

    def go(self, fragment: str) -> None:
        """Change the fragment of the opened page's address."""
        self.browser.js("location.hash = arguments[0]", fragment)
        self.browser.frames()

    def start_over(self) -> None:
        """Make the opened page show all features again, in the order of the result, without a card."""
        self.go("")
        assert self.fragment() == ""
        assert self.count().shown == self.count().reported
        assert not self.card_is_open()

    def drawn_rows(self) -> list[str]:
        """Features of the rows that exist at the moment."""
        return self.browser.js("return [...document.querySelectorAll(arguments[0])].map(r => r.dataset.feature)", ROWS)

    def rows(self) -> list[str]:
        """Features of all rows, in order, after scrolling down to the last."""
        wanted = self.count().shown
        last = f"document.querySelector({ROWS + ':last-child'!r})?.scrollIntoView({{behavior: 'instant'}})"

        def all_there() -> bool:
            self.browser.js(last)
            return len(self.drawn_rows()) == wanted

        self.browser.until(all_there, f"scrolling does not bring all {wanted} rows")
        return self.drawn_rows()

    def count(self) -> Count:
        text = self.browser.one("#shown-count").text
        match = re.fullmatch(r"([\d,]+) of ([\d,]+) features?", text)
        assert match, text
        return Count(*(int(number.replace(",", "")) for number in match.groups()))

    def cells(self, column: str) -> list[str]:
        """What a column of the table shows."""
        return self.browser.js(
            """const head = document.querySelector(`#feature-table [data-sort="${arguments[0]}"]`).closest("th");
            return [...document.querySelectorAll(arguments[1])].map(row => row.cells[head.cellIndex].textContent)""",
            column,
            ROWS,
        )

    def sort(self, column: str) -> str:
        """Click a column's head; returns the direction that the page then shows."""
        self.browser.click(self.browser.one(f"#feature-table [data-sort={column}]"))
        return self.directions()[column]

    def directions(self) -> dict[str, str]:
        """Column -> the direction in which the table is sorted by it."""
        return self.browser.js(
            """return Object.fromEntries([...document.querySelectorAll("#feature-table thead th[aria-sort]")].map(
                head => [head.querySelector("[data-sort]").dataset.sort, head.getAttribute("aria-sort")]))"""
        )

    def choose(self, name: str, value: str) -> None:
        """Choose from a list by keyboard, as the driver's click on an option fires fewer events than a person's."""
        field = self.browser.one(f"#filter-{name}")
        values = self.browser.js("return [...arguments[0].options].map(option => option.value)", field)
        field.send_keys(Keys.HOME, *[Keys.ARROW_DOWN] * values.index(value))

    def type(self, selector: str, text: str) -> None:
        field = self.browser.one(selector)
        field.send_keys(Keys.CONTROL, "a")
        field.send_keys(text)

    def link(self, feature: str) -> WebElement:
        return self.browser.one(f"{ROWS}[data-feature='{feature}'] a[href]")

    def open_card(self, feature: str) -> None:
        self.browser.click(self.link(feature))
        self.browser.until(self.card_is_open, f"a click on the row of {feature} does not open its card")

    def card_is_open(self) -> bool:
        return self.browser.js("return document.querySelector('#card').open")

    def title(self) -> str:
        """The title of the card."""
        return self.browser.one("#card-title").text

    def focused(self) -> WebElement:
        return self.browser.js("return document.activeElement")

    def fragment(self) -> str:
        return self.browser.js("return location.hash").removeprefix("#")

    def width_beyond(self, screen: Screen) -> int:
        """CSS pixels by which the page is wider than the screen."""
        return max(0, self.browser.js("return document.documentElement.scrollWidth") - screen.width)


def reported(result: Path) -> pd.DataFrame:
    """The reported features of a result in the order of the table across layers, indexed by names such as `16/163`."""
    table = pd.read_parquet(result / "features.parquet").set_index(["layer", "feature_number"], drop=False)
    order = pd.read_csv(result / "consolidated_top_features_all_layers.csv", usecols=["layer", "feature_number"])
    table = table.loc[pd.MultiIndex.from_frame(order[["layer", "feature_number"]])]
    return table.set_axis([f"{layer}/{number}" for layer, number in table.index])


def title_of(row: pd.Series) -> str:
    return f"Layer {row['layer']}, feature {row['feature_number']}: {row['label']}"
