from __future__ import annotations

import math

import pytest

from scheduler.costs.grid import NO_GRID, Footprint, Grid, Rate

NOON = 12 * 3600.0


def test_a_kilowatt_hour_at_a_constant_rate() -> None:
    grid = Grid(Rate.constant(380), Rate.constant(0.3), pue=1.5, currency="EUR")
    found = grid.footprint(3.6e6, NOON)
    assert (found.co2_g, found.cost) == pytest.approx((570, 0.45))
    assert found.currency == "EUR"
    assert NO_GRID.footprint(3.6e6, NOON) == Footprint(None, None, "")


def test_hours_of_every_day() -> None:
    rate = Rate({hour: float(hour) for hour in range(24)}, daily=True)
    assert rate.at(NOON) == rate.at(NOON + 86_400 * 400 + 3599) == 12
    assert rate.mean == 11.5
    assert rate.factor(NOON) == pytest.approx(12 / 11.5)


def test_a_series_of_moments() -> None:
    rate = Rate({10: 1.0, 12: 3.0}, daily=False)
    assert [rate.at(hour * 3600) for hour in (0, 10, 11, 12, 99)] == [1, 1, 1, 3, 3]


def test_a_factor_is_never_nothing() -> None:
    assert Rate.constant(0.0).factor(NOON) == 1.0
    free = Rate({hour: float(hour != 12) for hour in range(24)}, daily=True)
    assert 0 < free.factor(NOON) < 1e-6


@pytest.mark.parametrize("amount", [-1.0, math.nan, math.inf])
def test_amounts_that_are_none(amount: float) -> None:
    with pytest.raises(ValueError, match="must be a finite number >= 0"):
        Rate.constant(amount)


def test_days_that_are_not_whole() -> None:
    with pytest.raises(ValueError, match="each of the hours 0 to 23"):
        Rate({0: 1.0}, daily=True)
    with pytest.raises(ValueError, match="has no hour"):
        Rate({}, daily=False)
