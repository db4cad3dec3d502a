"""Who gets to the page, and with what: keys, screen readers, small screens, the keyboard."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from browser import Visitor
from fake_serve import ACCURATE, FRUGAL, ServeDouble
from page_doubles import order, serious_faults, served
from playwright.sync_api import Browser, expect

KEY = "key-of-alice"


def test_the_key_stays_in_memory(
    browser: Browser, doubles: ServeDouble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deployments.router.server.STORE_PERIOD_S", 0.05)
    monkeypatch.setitem(os.environ, "DYNAMIC_LLM_SCHEDULER_API_KEYS", KEY)
    guarded = served(tmp_path)
    visitor = Visitor(browser, guarded.url)
    try:
        page = visitor.blank()
        page.goto(guarded.url)
        dialog = page.locator("#key-dialog")
        expect(dialog).to_be_visible()
        assert serious_faults(page) == []
        # Whoever does not want to give one is not asked again and again.
        page.keyboard.press("Escape")
        expect(page.locator("#problem")).to_have_text("missing or wrong API key")
        expect(dialog).to_be_hidden()
        page.locator("#key-button").click()
        page.locator("#key").fill("wrong")
        page.locator("#key").press("Enter")
        expect(page.locator("#key-problem")).to_have_text("missing or wrong API key")
        page.locator("#key").fill(KEY)
        page.locator("#key").press("Enter")
        expect(dialog).to_be_hidden()
        expect(page.locator("#candidates > li")).to_have_count(3)
        page.locator("#ask-button").click()
        expect(page.locator("#answer")).to_have_attribute("data-state", "whole")
        kept = page.evaluate("[localStorage.length, sessionStorage.length, document.cookie]")
        assert kept == [0, 0, ""]
        assert page.locator("#key").input_value() == ""
        assert not any(KEY in url for url in visitor.requests)
        page.reload()
        expect(dialog).to_be_visible()
        # The browser itself logs each refused request.
        assert all("401" in fault for fault in visitor.faults)
    finally:
        visitor.leave()
        guarded.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
def test_axe_finds_nothing_serious(visitor: Visitor, scheme: Any, width: int) -> None:
    page = visitor.open(
        color_scheme=scheme,
        reduced_motion="reduce",
        viewport={"width": width, "height": 800},
    )
    page.locator("#limit-min_accuracy").fill("14")
    expect(page.locator("#excluded li")).to_have_count(1)
    page.locator("#ask-button").click()
    expect(page.locator("#outcome")).to_be_visible()
    assert serious_faults(page) == []
    # Nothing is cut off, and nothing makes the page wider than it is.
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    visitor.check()


def test_the_keyboard_alone_is_enough(visitor: Visitor) -> None:
    page = visitor.open()
    reached: list[str] = []

    def tab_to(selector: str) -> None:
        for _ in range(40):
            page.keyboard.press("Tab")
            focused = page.locator(":focus")
            reached.append(focused.evaluate("(e) => e.id || e.textContent.trim().slice(0, 20)"))
            if focused.evaluate("(e, selector) => e.matches(selector)", selector):
                return
        raise AssertionError(f"{selector} is not reached: {reached}")

    tab_to(".skip")
    page.keyboard.press("Enter")
    tab_to("#prompt")
    page.keyboard.press("Control+A")
    page.keyboard.type("Name a river.")
    tab_to("#ask-button")
    page.keyboard.press("Enter")
    expect(page.locator("#answer")).to_have_attribute("data-state", "whole")
    tab_to("#triangle [role=slider]")
    page.keyboard.press("PageDown")
    assert order(page)[0] == FRUGAL
    tab_to("#weight-accuracy")
    page.keyboard.press("End")
    assert order(page)[0] == ACCURATE
    tab_to("#limit-max_latency_s")
    tab_to("#replicas-title ~ .scroll")
    visitor.check()
