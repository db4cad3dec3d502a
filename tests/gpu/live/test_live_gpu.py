"""The real engine behind the router on real GPUs, or rehearsed: see conftest.py."""

from __future__ import annotations

import pytest
from gpu.visit import checks
from gpu.visit.site import Site

pytestmark = [pytest.mark.integration, pytest.mark.gpu]


def test_every_model_is_available(site: Site) -> None:
    checks.check_health(site)


def test_each_replica_is_on_the_gpu_that_it_reserved(site: Site) -> None:
    checks.check_placement(site)


def test_energy_comes_from_the_devices_own_counter(site: Site) -> None:
    checks.check_energy_source(site)


def test_what_devices_draw_with_nothing_to_do_is_a_metric(site: Site) -> None:
    checks.check_idle_gauge(site)


def test_streams_come_in_pieces_and_whole(site: Site) -> None:
    checks.check_streams(site)


def test_tools_are_called(site: Site) -> None:
    checks.check_tools(site)


def test_another_model_goes_on_where_an_engine_is_killed(site: Site) -> None:
    checks.check_failover(site)


def test_a_model_gets_a_replica_more_where_there_is_room(site: Site) -> None:
    if not site.layout.spare:
        pytest.skip(f"{site.layout.declared} GPUs have no room for a fourth replica")
    checks.check_scaling(site)


def test_it_is_well_after_all_that(site: Site) -> None:
    checks.check_health(site)
