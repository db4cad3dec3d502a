"""The page against real models, through Serve's proxy."""

from __future__ import annotations

import re

import httpx
import pytest
from browser import Visitor, running_browser
from live_cluster import Cluster
from playwright.sync_api import expect

pytestmark = pytest.mark.integration


def test_the_page_asks_real_models(cluster: Cluster) -> None:
    served = httpx.get(cluster.url)
    assert "default-src 'none'" in served.headers["content-security-policy"]
    with running_browser() as browser:
        visitor = Visitor(browser, cluster.url)
        page = visitor.open()
        expect(page.locator("#candidates > li")).not_to_have_count(1)
        page.locator("#weight-energy").fill("100")
        page.locator("#max-tokens").fill("24")
        page.locator("#ask-button").click()
        expect(page.locator("#answer")).to_have_attribute("data-state", "whole", timeout=30_000)
        answered = page.locator("#answer-status strong").text_content()
        assert answered is not None
        assert answered == page.locator("#candidates > li").first.get_attribute("data-model")
        expect(page.locator("#outcome")).to_contain_text("Energy")
        newest = page.locator("#decisions tbody tr").first
        expect(newest).to_contain_text(answered)
        expect(newest).to_contain_text("0 / 100 / 0")
        # Every replica reports itself within seconds.
        row = page.locator("#replicas tbody tr", has_text=answered).first
        expect(row).to_contain_text(re.compile(r"\d W$"))
        visitor.check()
        visitor.leave()


def test_stop_reaches_the_engine(cluster: Cluster) -> None:
    with running_browser() as browser:
        visitor = Visitor(browser, cluster.url)
        page = visitor.open()
        page.locator("#max-tokens").fill("400")
        page.locator("#ask-button").click()
        expect(page.locator("#answer-text")).not_to_be_empty(timeout=30_000)
        page.locator("#stop-button").click()
        expect(page.locator("#answer-status")).to_contain_text("Stopped by you.")
        newest = page.locator("#decisions tbody tr").first
        expect(newest).to_contain_text("the client went away")
        # Nobody generates for a reader who left.
        for row in page.locator("#replicas tbody tr").all():
            expect(row.locator("td").nth(3)).to_have_text("0")
        visitor.check()
        visitor.leave()
