"""A headless Chromium for tests of the report: started once, without any network, with a log of all its requests.

Without a browser the tests are skipped with a note on what to install; if the variable CI is `true` they fail.
"""

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

AXE = Path(__file__).parents[2] / ".venv" / "node_modules" / "axe-core" / "axe.min.js"
FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-extensions", "--disable-sync"),
    *("--lang=en-US", "--host-resolver-rules=MAP * ~NOTFOUND"),
)
MAX_WAIT_SECONDS = 20
ACCEPTED_IMPACTS = ("moderate", "minor")
"""Broken accessibility rules of these impacts are ignored."""


class Screen(NamedTuple):
    """The size of a window in CSS pixels."""

    width: int
    height: int


DESK = Screen(1440, 900)
PHONE = Screen(390, 844)


class Browser:
    """A browser with one window, in which pages are opened from disk."""

    def __init__(self, driver: webdriver.Chrome, downloads: Path):
        self.driver = driver
        self.downloads = downloads

    def open(self, path: Path, fragment: str = "", screen: Screen = DESK) -> None:
        """Open a page as if for the first time: nothing stored or downloaded, the system's theme light."""
        self.driver.get("about:blank")
        self._command("Storage.clearDataForOrigin", origin="file://", storageTypes="all")
        self.system_theme("light")
        self.resize(screen)
        self.forget_downloads()
        for log in ("browser", "performance"):
            self.driver.get_log(log)
        self.driver.get(path.resolve().as_uri() + (f"#{fragment}" if fragment else ""))
        assert self.driver.current_url.startswith("file:"), f"{path} was not opened"

    def resize(self, screen: Screen) -> None:
        self._command(
            "Emulation.setDeviceMetricsOverride",
            **screen._asdict(),
            deviceScaleFactor=1,
            mobile=screen.width < 600,
        )

    def system_theme(self, theme: str) -> None:
        """Set the system's theme to `light` or `dark`, without animations, so that clicks hit their targets."""
        preferences = {"prefers-color-scheme": theme, "prefers-reduced-motion": "reduce"}
        features = [{"name": name, "value": value} for name, value in preferences.items()]
        self._command("Emulation.setEmulatedMedia", features=features)

    def on_paper(self, script: str) -> Any:
        """Print to a PDF that is thrown away; returns the result of a script that runs in the layout for paper."""
        self.js(
            f"""window.paper = matchMedia("print");
            paper.addEventListener("change", () => {{ paper.result = (() => {{ {script} }})(); }}, {{once: true}})"""
        )
        self._command("Page.printToPDF")
        return self.js("return window.paper.result")

    def _command(self, name: str, **parameters: object) -> Any:
        return self.driver.execute_cdp_cmd(name, parameters)

    def console(self) -> list[str]:
        """Console warnings and errors since the page was opened, or since the last call."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] in ("WARNING", "SEVERE")]

    def requests(self) -> list[str]:
        """Addresses that the page requested, including that of its own file."""
        messages = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        sent = [one["params"]["request"]["url"] for one in messages if one["method"] == "Network.requestWillBeSent"]
        return [url for url in sent if not url.startswith(("data:", "blob:", "about:"))]

    def js(self, script: str, *arguments: object) -> Any:
        return self.driver.execute_script(script, *arguments)

    def js_later(self, script: str, *arguments: object) -> Any:
        """The value that a script passes to its last argument, a callback."""
        return self.driver.execute_async_script(script, *arguments)

    def one(self, selector: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def texts(self, selector: str) -> list[str]:
        """Text content of every element that matches."""
        return self.js("return [...document.querySelectorAll(arguments[0])].map(one => one.textContent)", selector)

    def press(self, *keys: str) -> None:
        for key in keys:
            ActionChains(self.driver, duration=0).send_keys(key).perform()

    def frames(self) -> None:
        """Wait until the page is drawn and its scroll events have been handled."""
        self.js_later("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")

    def hover(self, element: WebElement) -> None:
        self.js("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", element)
        self.frames()
        ActionChains(self.driver, duration=0).move_to_element(element).perform()

    def click(self, element: WebElement) -> None:
        """Click at the position of the element, even if something covers it."""
        self.hover(element)
        ActionChains(self.driver, duration=0).click().perform()

    def until(self, condition: Callable[[], object], message: str) -> None:
        """Wait until a condition is true; the message says what failed."""
        WebDriverWait(self.driver, MAX_WAIT_SECONDS, poll_frequency=0.05).until(lambda _: condition(), message)

    def forget_downloads(self) -> None:
        for path in self.downloads.iterdir():
            path.unlink()

    def downloaded(self, name: str) -> Path:
        """The path of a file that the page offered for download, once it is complete."""
        path = self.downloads / name
        end = time.monotonic() + MAX_WAIT_SECONDS
        while not path.exists() and time.monotonic() < end:
            time.sleep(0.05)
        assert path.exists(), f"{name} was not downloaded, but {[one.name for one in self.downloads.iterdir()]}"
        return path

    def violations(self, *rules: str) -> list[str]:
        """Accessibility rules of serious or critical impact that the page breaks, each with the first elements.

        Args:
            rules: ids of the rules to check; all rules if none is given.
        """
        if not self.js("return Boolean(window.axe)"):
            self.js(axe_source())
        options = {"resultTypes": ["violations"]} | ({"runOnly": list(rules)} if rules else {})
        run = """axe.run(document, arguments[0]).then(
            found => arguments[1](found.violations), error => arguments[1]([{id: String(error), nodes: []}]))"""
        return [_describe(one) for one in self.js_later(run, options) if one.get("impact") not in ACCEPTED_IMPACTS]


def _describe(violation: dict[str, Any]) -> str:
    elements = [f"{node['target']} {node['failureSummary']}" for node in violation["nodes"][:5]]
    return f"{violation['id']}, {len(violation['nodes'])} elements: {elements}"


def missing(message: str) -> NoReturn:
    """Skip the test, or fail it in CI, where the browser must be installed."""
    refuse = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
    refuse(f"{message}; .ci/browser installs it on Debian")


def axe_source() -> str:
    if not AXE.exists():
        missing("no accessibility rules: npm's axe-core")
    return AXE.read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    program, control = shutil.which("chromium"), shutil.which("chromedriver")
    if program is None or control is None:
        missing("no headless browser: the packages chromium and chromium-driver")
    downloads = tmp_path_factory.mktemp("downloads")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for flag in FLAGS:
        options.add_argument(flag)
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, Service(control))
    driver.set_script_timeout(MAX_WAIT_SECONDS)
    try:
        yield Browser(driver, downloads)
    finally:
        driver.quit()
