from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from deployments.config.app import RouterConfig
from deployments.config.base import describe_errors
from deployments.config.grid import GridConfig

DAY = "hour,value\n" + "\n".join(f"{hour},{hour * 10}" for hour in range(24))


def fault(config: Any) -> str:
    with pytest.raises(ValidationError) as raised:
        RouterConfig.model_validate(config)
    return describe_errors(raised.value)


def test_numbers_and_files(tmp_path: Path) -> None:
    day, series = tmp_path / "day.csv", tmp_path / "series.csv"
    day.write_text(DAY)
    series.write_text("1970-01-01T10:00Z,1\n1970-01-01T12:00+01:00,2.5\n")
    grid = GridConfig(g_co2_per_kwh=str(day), price_per_kwh=str(series), pue=1.2).grid()
    assert grid.carbon is not None
    assert grid.carbon.at(5 * 3600) == 50
    assert grid.price is not None
    assert [grid.price.at(hour * 3600) for hour in (10, 11)] == [1, 2.5]
    assert GridConfig(g_co2_per_kwh=380).grid().price is None


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("0,1\n", "must have each of the hours 0 to 23 once"),
        ("", "has no hour"),
        ("hour,value\n0,1,2\n", "line 2: must be `hour,value`, got '0,1,2'"),
        ("x,1\n", "line 1: must be `hour,value`"),
        ("0,x\n", "line 1: must be `hour,value`"),
        ("0,1\n0,2\n", "line 2: the hour 0 is there twice"),
        ("0,1\n1970-01-01T10:00Z,1\n", "mixes hours of every day with moments"),
        ("1970-01-01T10:00Z,-1\n", "must be a finite number >= 0"),
    ],
)
def test_files_that_are_wrong(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "rate.csv"
    path.write_text(text)
    found = fault({"grid": {"g_co2_per_kwh": str(path)}})
    assert found.startswith("grid: ")
    assert f"g_co2_per_kwh: {str(path)!r}" in found
    assert told in found


def test_what_else_is_wrong() -> None:
    assert "No such file" in fault({"grid": {"price_per_kwh": "/none.csv"}})
    assert "grid.pue: " in fault({"grid": {"pue": 0.5}})
    assert "price_per_kwh" in fault({"grid": {"price_per_kwh": -1}})
    assert "'carbon' needs grid.g_co2_per_kwh" in fault({"default_weights": {"carbon": 1}})
    grid = {"g_co2_per_kwh": 380}
    assert RouterConfig.model_validate({"default_weights": {"carbon": 1}, "grid": grid})
