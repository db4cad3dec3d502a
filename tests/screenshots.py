"""Takes the pictures of page and terminal in docs/images, from what runs (`make serve`).

    python tests/screenshots.py [URL]

It asks the router a few questions first, so that the live view has something to show.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import httpx
from browser import running_browser
from playwright.sync_api import Browser, FloatRect, Page, ViewportSize
from rich.console import Console

from cluster.__main__ import DEFAULT_ADDRESS
from cluster.cli.overview import look
from cluster.cli.screen import screen
from cluster.serve_api import ServeApi

IMAGES = Path(__file__).parents[1] / "docs" / "images"
PROMPTS = (
    "What is the capital of France?",
    "Name three rivers in Europe.",
    "Write one sentence about the sea.",
    "How many legs does a spider have?",
)
WEIGHTS = ((8, 1, 1), (1, 1, 1), (0, 1, 0), (1, 0, 2), (6, 1, 2), (1, 0, 0))


def warm_up(url: str) -> None:
    """Answers with different weights."""
    with httpx.Client(base_url=url, timeout=120) as client:
        for i in range(3 * len(WEIGHTS)):
            weights = dict(
                zip(("accuracy", "energy", "time"), WEIGHTS[i % len(WEIGHTS)], strict=True)
            )
            body = {
                "model": "auto",
                "messages": [{"role": "user", "content": PROMPTS[i % len(PROMPTS)]}],
                "max_tokens": 48,
                "routing": {"weights": weights},
            }
            client.post("/v1/chat/completions", json=body).raise_for_status()


def decide(page: Page, image: Path) -> None:
    """The upper part with an answer; accuracy counts most."""
    page.locator("#weight-accuracy").fill("60")
    page.locator("#ask-button").click()
    page.locator("#outcome").wait_for(timeout=60_000)
    page.locator("#ask-button").blur()
    page.mouse.wheel(0, -5000)
    # A dry run after the answer, which it changes.
    page.wait_for_timeout(6_000)
    page.screenshot(path=image)


def live(page: Page, image: Path) -> None:
    """The lower part."""
    box = page.locator("#live").bounding_box()
    assert box
    clip = FloatRect(x=box["x"] - 6, y=box["y"], width=box["width"] + 12, height=box["height"])
    page.screenshot(path=image, full_page=True, clip=clip)


def phone(page: Page, image: Path) -> None:
    """The triangle of weights."""
    page.locator("#weights-title").evaluate("(title) => title.parentElement.scrollIntoView()")
    page.wait_for_timeout(1_000)
    page.screenshot(path=image)


def terminal(browser: Browser, image: Path) -> None:
    """What `python -m cluster status` shows."""
    console = Console(record=True, width=100, file=io.StringIO())
    with ServeApi(DEFAULT_ADDRESS) as api:
        console.print(screen(look(api), console.width))
    page = browser.new_page(device_scale_factor=1.5)
    page.set_content(console.export_svg(title="python -m cluster status"))
    page.locator("svg").screenshot(path=image)


def main(url: str) -> None:
    """All pictures."""
    with running_browser() as browser:

        def visit(width: int, height: int, **options: Any) -> Page:
            size = ViewportSize(width=width, height=height)
            context = browser.new_context(viewport=size, reduced_motion="reduce", **options)
            page = context.new_page()
            page.goto(url)
            page.locator("#candidates li.chosen").wait_for()
            return page

        # There before the requests, so that it sees what they draw.
        watching = visit(1240, 1180, device_scale_factor=1.25)
        warm_up(url)
        decide(visit(1240, 1180, device_scale_factor=1.5), IMAGES / "page.png")
        live(watching, IMAGES / "page-live.png")
        terminal(browser, IMAGES / "status.png")
        phone(
            visit(390, 844, device_scale_factor=2, color_scheme="dark"), IMAGES / "page-phone.png"
        )
    print(f"wrote page.png, page-live.png, page-phone.png and status.png to {IMAGES}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000")
