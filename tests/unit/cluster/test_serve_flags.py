from __future__ import annotations

import pytest

from cluster.serve_flags import FOR_SPEED, SERVE_FLAGS, slow_start


def test_a_start_with_all_flags_is_not_worth_a_word() -> None:
    assert slow_start(SERVE_FLAGS) is None


@pytest.mark.parametrize("name", FOR_SPEED)
@pytest.mark.parametrize("value", [None, "0"])
def test_a_missing_flag_is_named(name: str, value: str | None) -> None:
    environment = {k: v for k, v in SERVE_FLAGS.items() if k != name}
    told = slow_start({**environment, name: value} if value else environment)
    assert told is not None
    assert f"without {name}=1:" in told
