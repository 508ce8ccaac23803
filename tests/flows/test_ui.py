"""What people see of a run in Prefect's UI, looked at with a real browser.

Skipped where there is no Chromium with its driver. Screenshots are left in build/screenshots.
"""

import json
import shutil
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from selenium.webdriver import Chrome, ChromeOptions, ChromeService
from selenium.webdriver.common.by import By

PROJECT = Path(__file__).parents[2]
SCREENSHOTS = PROJECT / "build" / "screenshots"
PATIENCE = 60.0  # seconds until a page shows what it should; a busy machine is slow
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None or DRIVER is None, reason="no Chromium with chromedriver here"),
    # The first of them may have to wait for server, worker and run, on a busy machine.
    pytest.mark.timeout(900),
]


@dataclass(frozen=True)
class Looker:
    """A browser before the pages of a Prefect server."""

    chrome: Chrome
    address: str

    def at(self, path: str, screenshot: str, *expected: str) -> str:
        """Open a page, wait until it shows every expected text, keep a picture of it, and return its text."""
        self.chrome.get(f"{self.address}/{path}")
        deadline = time.monotonic() + PATIENCE
        while True:
            text = self.chrome.find_element(By.TAG_NAME, "body").text
            missing = [words for words in expected if words not in text]
            if not missing or time.monotonic() > deadline:
                break
            time.sleep(0.3)
        self.chrome.save_screenshot(str(SCREENSHOTS / f"{screenshot}.png"))
        assert not missing, f"{path} does not show {missing}:\n{text}"
        return text

    def artifact(self, key: str, *expected: str) -> str:
        """Open the newest artifact under a key by its link, as `at` does."""
        self.at(f"artifacts/key/{key}", f"{key}-versions", "Created")
        newest = self.chrome.find_element(By.CSS_SELECTOR, "a[href*='/artifacts/artifact/']").get_attribute("href")
        return self.at(str(newest).removeprefix(f"{self.address}/"), key, *expected)

    def pictures(self) -> list[tuple[int, int]]:
        """Width and height, in pixels of their own, of the page's embedded pictures that could be decoded."""
        sizes = ".map(picture => [picture.naturalWidth, picture.naturalHeight])"
        return self.chrome.execute_script(f"return [...document.querySelectorAll('img[src^=\"data:image\"]')]{sizes}")


@pytest.fixture(scope="module")
def looker(prefect_server) -> Iterator[Looker]:
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    options = ChromeOptions()
    options.binary_location = str(BROWSER)
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--window-size=1300,1100",
                     "--disable-background-networking", "--disable-component-update", "--disable-sync"):  # fmt: skip
        options.add_argument(argument)
    chrome = Chrome(options=options, service=ChromeService(executable_path=str(DRIVER)))
    try:
        yield Looker(chrome, prefect_server.api.removesuffix("/api"))
    finally:
        chrome.quit()


def test_the_flow_run_shows_what_ran_under_names_that_say_what_it_is(looker: Looker, deployed_run):
    page = f"runs/flow-run/{deployed_run.flow_run}"
    looker.at(page, "flow-run", "tiny until report", "Completed", "dfnas")
    looker.at(
        f"{page}?tab=Task%20Runs",
        "task-runs",
        "synthesize round 1 shard 1",
        "search architecture",
        "write report",
    )


def test_the_artifacts_say_how_the_shards_went_and_what_came_out(looker: Looker, deployed_run):
    overview = looker.at("artifacts", "artifacts", "dfnas-tiny-shards", "dfnas-tiny-images", "dfnas-tiny-report")
    assert {"dfnas-tiny-search", "dfnas-tiny-retrain", "dfnas-tiny-training-curve"} <= set(overview.split())
    shards = looker.artifact("dfnas-tiny-shards", "4 done, 0 cached, 0 failed, of 4")
    assert {"seconds", "loss", "agreement", "done"} <= set(shards.lower().split())
    looker.artifact("dfnas-tiny", "agreement with the teacher", str(deployed_run.directory / "report.html"))
    looker.artifact("dfnas-tiny-report", "report.html")
    looker.artifact("dfnas-tiny-retrain", "retrain: step 9 of 9", "100%")


@pytest.mark.usefixtures("deployed_run")
@pytest.mark.parametrize("part", ["images", "search-curve", "training-curve"])
def test_images_and_curves_are_drawn_in_the_browser(looker: Looker, part: str):
    looker.artifact(f"dfnas-tiny-{part}", f"dfnas-tiny-{part}")
    deadline = time.monotonic() + PATIENCE
    while not looker.pictures() and time.monotonic() < deadline:
        time.sleep(0.3)
    looker.chrome.save_screenshot(str(SCREENSHOTS / f"dfnas-tiny-{part}.png"))
    [(width, height)] = looker.pictures()
    assert width > 300
    assert height > 100


@pytest.mark.usefixtures("deployed_run")
def test_the_config_is_a_form_with_descriptions_and_bounds(looker: Looker):
    with urllib.request.urlopen(f"{looker.address}/api/deployments/name/dfnas/full") as answer:
        deployment = json.load(answer)
    looker.at(
        f"deployments/deployment/{deployment['id']}/run",
        "form",
        "every random draw of the run derives from it",
        "batches of canvases per round; each is made by itself",
        "List can only have 2 items",
    )
