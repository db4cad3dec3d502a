"""Grams and money of an answer, and weights by the price and the carbon of the hour."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_metrics import Library
from fake_serve import ACCURATE, FRUGAL, Site

from deployments.router.observe.metrics import RequestMetrics

MODELS = [{"id": ACCURATE}, {"id": FRUGAL}]


def weights_of(site: Site, **weights: float) -> Any:
    body = {"model": "auto", "prompt": "x", "routing": {"weights": weights}}
    return site.request("POST", "/v1/route", json=body).json()


def test_an_answer_says_what_its_energy_came_to(
    start_site: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics = RequestMetrics(library := Library())
    monkeypatch.setattr("deployments.router.server.RequestMetrics", lambda: metrics)
    site = start_site()
    grid = {"g_co2_per_kwh": 360, "price_per_kwh": 0.36, "pue": 2, "currency": "EUR"}
    site.configure(models=MODELS, grid=grid)
    actual = site.complete(model=FRUGAL).json()["routing"]["actual"]
    assert actual["energy_joules"] == 1.5
    assert actual["co2_g"] == pytest.approx(1.5 * 2 * 1e-4)
    assert actual["cost"] == pytest.approx(1.5 * 2 * 1e-7)
    assert actual["currency"] == "EUR"
    metrics.flush()
    ((which, grams),) = library["co2_grams"].items()
    assert dict(which)["model"] == FRUGAL
    assert grams == [pytest.approx(3e-4)]


def test_without_a_grid_nothing_is_said(site: Site) -> None:
    actual = site.complete(model=FRUGAL).json()["routing"]["actual"]
    assert set(actual) == {"output_tokens", "runtime_s", "energy_joules"}


def test_weights_by_the_hour(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    day = tmp_path / "day.csv"
    day.write_text("\n".join(f"{hour},{3.0 if hour == 12 else 1.0}" for hour in range(24)))
    mean = 26 / 24
    site.configure(models=MODELS, grid={"g_co2_per_kwh": str(day), "price_per_kwh": 0.3})
    monkeypatch.setattr("deployments.router.decision.decide.time.time", lambda: 12 * 3600.0)
    weights = weights_of(site, accuracy=1, carbon=1)["weights"]
    assert weights["energy"] / weights["accuracy"] == pytest.approx(3 / mean)
    # A constant price is energy.
    assert weights_of(site, accuracy=1, price=1)["weights"]["energy"] == pytest.approx(0.5)
    both = weights_of(site, accuracy=1, energy=1, price=1, carbon=1)["weights"]
    assert both["energy"] / both["accuracy"] == pytest.approx(2 + 3 / mean)
    usual = {"accuracy": 1, "energy": 0, "time": 0, "carbon": 1}
    site.configure(models=MODELS, grid={"g_co2_per_kwh": str(day)}, default_weights=usual)
    body = {"model": "auto", "prompt": "x"}
    weights = site.request("POST", "/v1/route", json=body).json()["weights"]
    assert weights["energy"] / weights["accuracy"] == pytest.approx(3 / mean)


@pytest.mark.parametrize("weight", ["price", "carbon"])
def test_what_a_weight_needs(site: Site, weight: str) -> None:
    error = weights_of(site, **{weight: 1.0})["error"]
    assert error["param"] == f"routing.weights.{weight}"
    assert "needs grid." in error["message"]
    assert weights_of(site, **{weight: -1.0})["error"]["param"] == f"routing.weights.{weight}"
