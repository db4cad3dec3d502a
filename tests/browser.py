"""A real Chromium for the tests of the page: the system's own, driven by Playwright."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")
TIMEOUT_MS = 20_000
"""For a machine that does much else; elsewhere what is awaited comes within milliseconds."""
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@contextmanager
def running_browser() -> Iterator[Browser]:
    """A headless Chromium; skips where there is none.

    Not for a whole session: meanwhile no other test can run an event loop in this thread.
    """
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip(f"no Chromium here (looked for {', '.join(NAMES)})")
    expect.set_options(timeout=TIMEOUT_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=list(FLAGS))
        yield browser
        browser.close()


class Visitor:
    """Opens pages, and remembers what they did that they should not.

    Attributes:
        faults: Errors of the console and of scripts.
        requests: Every address that was asked for, in order.
    """

    def __init__(self, browser: Browser, url: str) -> None:
        self.url = url
        self.faults: list[str] = []
        self.requests: list[str] = []
        self._browser = browser

    def open(self, **context: Any) -> Page:
        """The page, once it has predicted something; `context` is Playwright's."""
        page = self.blank(**context)
        page.goto(self.url)
        page.wait_for_selector("#candidates li.chosen")
        return page

    def blank(self, **context: Any) -> Page:
        """A tab that is watched."""
        page = self._browser.new_context(**context).new_page()
        page.set_default_timeout(TIMEOUT_MS)
        page.on("console", self._note)
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.on("request", lambda request: self.requests.append(request.url))
        return page

    def _note(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.faults.append(message.text)

    def check(self) -> None:
        """Nothing went wrong, and nothing was asked of anybody else."""
        strangers = [url for url in self.requests if not url.startswith(f"{self.url}/")]
        assert (self.faults, strangers) == ([], [])

    def leave(self) -> None:
        """Close all pages."""
        for context in self._browser.contexts:
            context.close()
