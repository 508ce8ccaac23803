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
from typing import Any

import pytest
import yaml
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

    def api(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """What the server answers to a GET, or to a POST of a body."""
        content = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.address}/api/{path}", content, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)

    def wait_for_state(self, flow_run: str, state: str) -> None:
        """Wait until a flow run is in a state."""
        deadline = time.monotonic() + 5 * PATIENCE
        while (now := self.api(f"flow_runs/{flow_run}")["state_type"]) != state:
            assert time.monotonic() < deadline, f"{now} instead of {state}"
            time.sleep(0.5)

    def press(self, button: str, *, last: bool = False) -> None:
        """Press the first button with a text, or the last one, such as that of a dialog."""
        deadline = time.monotonic() + PATIENCE
        while True:
            found = self.chrome.find_elements("xpath", f"//button[normalize-space()='{button}']")
            shown = [element for element in found if element.is_displayed()]
            if len(shown) > last:
                shown[-1 if last else 0].click()
                return
            assert time.monotonic() < deadline, f"there is no button '{button}'"
            time.sleep(0.3)


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


@pytest.mark.usefixtures("deployed_run")
def test_retry_on_the_page_of_a_failed_run_makes_what_is_missing(
    looker: Looker, worker, tiny_config: Path, finished_run: Path, tmp_path: Path
):
    """A directory where a shard's object belongs fails that shard; with it out of the way, the button completes it."""
    run = shutil.copytree(finished_run, tmp_path / "run")
    lost = run / "manifests" / "synthesis-round-001-shard-00001.json"
    expected = json.loads(lost.read_text())["digest"]
    lost.unlink()
    in_the_way = run / "dataset.zarr" / "losses" / "c" / "3"
    in_the_way.unlink()
    in_the_way.mkdir()
    parameters = {"config": yaml.safe_load(tiny_config.read_text()), "run_dir": str(run), "until": "synthesis"}
    deployment = looker.api("deployments/name/dfnas/full")["id"]
    with worker(tmp_path / "worker.log"):
        flow_run = looker.api(f"deployments/{deployment}/create_flow_run", {"parameters": parameters})["id"]
        page = f"runs/flow-run/{flow_run}"
        looker.wait_for_state(flow_run, "FAILED")
        looker.at(page, "failed", "tiny until synthesis", "1 of 4 shard-rounds are missing", "Retry")
        in_the_way.rmdir()
        looker.press("Retry")
        looker.press("Retry", last=True)
        looker.wait_for_state(flow_run, "COMPLETED")
    looker.at(page, "retried", "tiny until synthesis", "Completed")
    assert json.loads(lost.read_text())["digest"] == expected
