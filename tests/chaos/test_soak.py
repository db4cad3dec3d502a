"""The verdict of the soak, on usage that is made up."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from chaos.soak import Sample, Usage, verdicts


def soaked(rss_mib: Callable[[int], float], handles: Callable[[int], int]) -> tuple[bool, bool]:
    samples = [Sample(60.0 * i, {"store": Usage(rss_mib(i), handles(i))}) for i in range(21)]
    (of_kind,) = verdicts(samples).values()
    return of_kind["rss_mib"][1], of_kind["handles"][1]


def test_noise_and_a_warm_up_are_flat() -> None:
    assert soaked(lambda i: 300 + 5 * (i % 2) - 80 * (i < 4), lambda i: 100 + i % 3) == (True, True)


@pytest.mark.parametrize("mib_a_minute", [1.0, 5.0])
def test_memory_that_grows_all_the_time_is_not(mib_a_minute: float) -> None:
    assert soaked(lambda i: 200 + mib_a_minute * i, lambda i: 100) == (False, True)


def test_handles_that_are_never_closed_are_not() -> None:
    assert soaked(lambda i: 300, lambda i: 100 + i) == (True, False)


def test_what_shrinks_is_flat() -> None:
    assert soaked(lambda i: 300 - i, lambda i: 100 - i) == (True, True)
