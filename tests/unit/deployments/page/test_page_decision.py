"""What the page shows before anybody asks: predictions, weights, regions, limits."""

from __future__ import annotations

import re

import httpx
import pytest
from browser import Visitor
from fake_serve import ACCURATE, FRUGAL, ServeDouble
from page_doubles import MIDDLE, MODELS, order, weigh
from playwright.sync_api import Route, expect


def test_it_predicts_before_anybody_asks(visitor: Visitor, doubles: ServeDouble) -> None:
    page = visitor.open()
    assert sorted(filter(None, order(page))) == sorted(MODELS)
    expect(page.locator("#readiness")).to_have_text("3 of 3 models ready")
    first = page.locator("#candidates > li").first
    expect(first).to_contain_text("would answer")
    for name in ("Runtime", "Energy", "Accuracy", "Score"):
        expect(first.locator("dt", has_text=name)).to_be_visible()
    assert not any(model.calls for model in doubles.models.values())
    visitor.check()


def test_an_interval_of_the_accuracy_is_drawn_where_there_is_one(visitor: Visitor) -> None:
    def with_interval(route: Route) -> None:
        answer = route.fetch()
        decision = answer.json()
        for candidate in decision["candidates"]:
            known = candidate["model"] == ACCURATE
            candidate["accuracy_interval"] = [0.71, 0.96] if known else None
        route.fulfill(response=answer, json=decision)

    page = visitor.blank()
    page.route("**/v1/route", with_interval)
    page.goto(visitor.url)
    estimated = page.locator(f"#candidates > li[data-model={ACCURATE}]")
    expect(estimated).to_contain_text("71 to 96 %")
    expect(estimated.locator(".band")).to_have_count(3)
    expect(page.locator(f"#candidates > li[data-model={FRUGAL}] .band")).to_have_count(2)
    visitor.check()


def test_typing_asks_once_it_pauses(visitor: Visitor) -> None:
    page = visitor.open()
    visitor.requests.clear()
    page.locator("#prompt").press_sequentially(" and of Italy, Spain and Portugal?", delay=5)
    expect(page.locator("#comparison-note")).to_contain_text("Predicted for 28 prompt tokens")
    dry_runs = [url for url in visitor.requests if url.endswith("/v1/route")]
    # A machine that is busy elsewhere pauses by itself.
    assert 1 <= len(dry_runs) <= 5
    visitor.check()


def test_an_answer_that_is_late_changes_nothing(visitor: Visitor) -> None:
    page = visitor.open()
    held: list[Route] = []

    def hold(route: Route) -> None:
        if held:
            route.continue_()
        held.append(route)

    page.route("**/v1/route", hold)
    with page.expect_request("**/v1/route"):
        page.locator("#prompt").fill("a" * 400)
    page.locator("#prompt").fill("b" * 800)
    expect(page.locator("#comparison-note")).to_contain_text("205 prompt tokens")
    # The first question was given up.
    assert held[0].request.failure == "net::ERR_ABORTED"
    visitor.check()


def test_weights_move_the_point_the_sliders_and_the_order(visitor: Visitor) -> None:
    page = visitor.open()
    weigh(page, "energy", 100)
    assert order(page)[0] == FRUGAL
    expect(page.locator("#weight-accuracy")).to_have_value("0")
    weigh(page, "accuracy", 100)
    assert order(page)[0] == ACCURATE
    handle = page.locator("#triangle [role=slider]")
    expect(handle).to_have_attribute("aria-valuetext", "accuracy 100 %, energy 0 %, runtime 0 %")
    for key, words in (("PageDown", "energy 100 %"), ("End", "runtime 100 %")):
        handle.press(key)
        expect(handle).to_have_attribute("aria-valuetext", re.compile(words))
    assert order(page)[0] == MIDDLE
    for _ in range(5):
        handle.press("Shift+ArrowLeft")
    expect(handle).to_have_attribute("aria-valuetext", "accuracy 0 %, energy 50 %, runtime 50 %")
    handle.press("ArrowUp")
    expect(page.locator("#weight-accuracy")).to_have_value("2")
    visitor.check()


def test_the_point_is_dragged_into_a_region(visitor: Visitor) -> None:
    page = visitor.open()
    page.wait_for_function("document.querySelectorAll('#triangle polygon').length === 3")
    for model in MODELS:
        handle = page.locator("#triangle .core").bounding_box()
        assert handle
        x, y = page.evaluate(
            """(model) => {
                const region = document.querySelector(`#triangle polygon[data-model=${model}]`);
                const corners = [...region.points];
                const mean = (axis) =>
                    corners.reduce((sum, corner) => sum + corner[axis], 0) / corners.length;
                const middle = new DOMPoint(mean("x"), mean("y"));
                const {x, y} = middle.matrixTransform(region.getScreenCTM());
                return [x, y];
            }""",
            model,
        )
        page.mouse.move(handle["x"] + handle["width"] / 2, handle["y"] + handle["height"] / 2)
        page.mouse.down()
        page.mouse.move(x, y, steps=4)
        page.mouse.up()
        assert order(page)[0] == model
    visitor.check()


def test_the_browser_decides_as_the_server_does(visitor: Visitor) -> None:
    """Regions, winners and scores over the whole triangle, borders and corners included."""
    page = visitor.open()
    steps = 6
    grid = [
        (a / steps, e / steps, (steps - a - e) / steps)
        for a in range(steps + 1)
        for e in range(steps + 1 - a)
    ]
    client = httpx.Client(base_url=visitor.url)
    for prompt in ("short", "long " * 200):
        decisions = [
            client.post(
                "/v1/route",
                json={
                    "model": "auto",
                    "prompt": prompt,
                    "routing": {"weights": {"accuracy": a, "energy": e, "time": t}},
                },
            ).json()
            for a, e, t in grid
        ]
        drawn = page.evaluate(
            """async ([candidates, grid]) => {
                const geometry = await import("/page/geometry.js");
                const regions = [...geometry.regions(candidates)];
                const inside = (polygon, [a, e]) => polygon.every(([a1, e1], i) => {
                    const [a2, e2] = polygon[(i + 1) % polygon.length];
                    const turn = (a2 - a1) * (e - e1) - (e2 - e1) * (a - a1);
                    return turn >= -1e-9;
                });
                return grid.map((weights) => ({
                    order: geometry.ranked(candidates, weights).map((c) => c.model),
                    scores: Object.fromEntries(
                        candidates.map((c) => [c.model, geometry.score(c, weights)])),
                    regions: regions.filter(([, polygon]) => inside(polygon, weights))
                        .map(([model]) => model),
                }));
            }""",
            # The candidates of any one of them: they do not depend on the weights.
            [decisions[0]["candidates"], grid],
        )
        for decision, found in zip(decisions, drawn, strict=True):
            told = [candidate["model"] for candidate in decision["candidates"]]
            assert found["order"] == told
            assert decision["model"] in found["regions"]
            for candidate in decision["candidates"]:
                assert found["scores"][candidate["model"]] == pytest.approx(candidate["score"])
        assert {decision["model"] for decision in decisions} == set(MODELS)
    client.close()
    visitor.check()


def test_limits_leave_models_out(visitor: Visitor) -> None:
    page = visitor.open()
    page.locator("#limit-min_accuracy").fill("14")
    expect(page.locator("#excluded")).to_contain_text("accuracy 0.6 < min_accuracy 0.7")
    assert FRUGAL not in order(page)
    expect(page.locator("#limit-min_accuracy")).to_have_attribute("aria-valuetext", "at least 70 %")
    expect(page.locator("#triangle polygon")).to_have_count(2)
    visitor.check()
    page.locator("#limit-max_energy_joules").fill("0")
    expect(page.locator("#problem")).to_contain_text("max_energy_joules 0.01 J")
    expect(page.locator("#candidates > li")).to_have_count(0)
