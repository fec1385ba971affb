"""A person at the Prefect UI: a real browser finds a deployment, fills in its form, and reads the report."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

from playwright.sync_api import Page, expect, sync_playwright

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
"""The browser of this machine; Playwright's own is never fetched."""
QUIET = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
ENDED = re.compile("^(Completed|Failed|Crashed|Cancelled)$")
PAGE_SECONDS = 30
RUN_SECONDS = 120


class PrefectUi:
    """The pages that a person on duty opens, one after the other."""

    def __init__(self, page: Page, url: str, images: Path) -> None:
        self._page = page
        self._url = url.rstrip("/")
        self._images = images

    def find_deployment(self, name: str, description: str) -> None:
        """Open the list of deployments, and one of them, which says what it does."""
        self._page.goto(f"{self._url}/deployments")
        link = self._page.get_by_role("link", name=name, exact=True).first
        link.wait_for()
        self._picture("deployments")
        link.click()
        self._page.get_by_text("Description", exact=True).click()
        expect(self._page.get_by_text(description)).to_be_visible()

    def start(self, dataset: str) -> UUID:
        """Fill in the form of the parameters and submit it; return the flow run."""
        self._page.get_by_role("button", name="Run", exact=True).last.click()
        self._page.get_by_text("Custom run").click()
        field = self._page.locator("textarea").first
        field.fill(dataset)
        self._picture("run-form")
        self._page.get_by_role("button", name="Submit").click()
        self._page.get_by_role("button", name="View run").last.click()
        self._page.wait_for_url("**/runs/flow-run/*")
        return UUID(self._page.url.split("/flow-run/")[1].split("?")[0])

    def watch(self, *tasks: str) -> None:
        """Stay on the run's page until the run and these tasks of it are completed."""
        self._page.reload()  # the page before shows the states of other runs
        ended = self._page.get_by_text(ENDED).first
        ended.wait_for(timeout=RUN_SECONDS * 1000)
        assert ended.inner_text() == "Completed"
        self._page.get_by_text("Task Runs", exact=True).click()
        for task in tasks:
            self._page.get_by_role("link", name=task).first.wait_for()
        self._picture("run")

    def read_report(self) -> str:
        """Open the report among the artifacts of the run, and return its text."""
        self._page.get_by_text("Artifacts", exact=True).last.click()
        self._page.locator('a[href*="/artifacts/"]', has_text="report-").first.click()
        self._page.get_by_role("table").first.wait_for()
        self._picture("run-report")
        return self._page.inner_text("body")

    def _picture(self, name: str) -> None:
        self._page.wait_for_load_state("networkidle")
        self._page.screenshot(path=self._images / f"{name}.png")


@contextmanager
def prefect_ui(url: str, folder: Path) -> Iterator[PrefectUi]:
    """Open a browser; pictures go into the folder, or into the one that ``DPP_UI_IMAGES`` names."""
    images = Path(os.environ.get("DPP_UI_IMAGES") or folder)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=QUIET)
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        page.set_default_timeout(PAGE_SECONDS * 1000)
        yield PrefectUi(page, url, images)
        browser.close()
