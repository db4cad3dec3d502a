"""The live view."""

from __future__ import annotations

import re

from browser import Visitor
from playwright.sync_api import expect


def test_live_shows_models_and_replicas(visitor: Visitor) -> None:
    page = visitor.open()
    expect(page.locator("#replicas tbody tr")).to_have_count(3)
    expect(page.locator("#replicas")).to_contain_text("95.0 W")
    expect(page.locator("#models tbody tr")).to_have_count(3)
    expect(page.locator("#tiles")).to_contain_text("285 W")
    expect(page.locator("#power svg")).to_have_attribute(
        "aria-label", re.compile("GPU-middle 95.0 W")
    )
    visitor.check()


def test_nobody_looks_often_while_hidden(visitor: Visitor) -> None:
    page = visitor.blank()
    page.clock.install()
    page.goto(visitor.url)

    def seconds_to_the_next_look() -> int:
        """On the page's clock; the router answers on ours meanwhile."""
        visitor.requests.clear()
        for second in range(60):
            if any("/v1/live" in url for url in visitor.requests):
                return second
            page.clock.run_for(1000)
            page.wait_for_timeout(20)
        raise AssertionError("nobody looks")

    seconds_to_the_next_look()
    assert seconds_to_the_next_look() <= 8
    page.evaluate("Object.defineProperty(document, 'hidden', {value: true, configurable: true})")
    seconds_to_the_next_look()
    assert seconds_to_the_next_look() >= 25
    page.evaluate("delete document.hidden; document.dispatchEvent(new Event('visibilitychange'))")
    assert seconds_to_the_next_look() <= 8
    visitor.check()
