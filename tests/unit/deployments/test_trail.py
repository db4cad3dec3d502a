from __future__ import annotations

from deployments.trail import Trail


def test_token_ids_are_taken_once() -> None:
    trail = Trail()
    trail.new_token_ids.extend([1, 2])
    assert trail.take_token_ids() == (1, 2)
    trail.new_token_ids.append(3)
    assert trail.take_token_ids() == (3,)
    assert trail.take_token_ids() == ()


def test_no_two_requests_share_one() -> None:
    first, second = Trail(), Trail()
    first.new_token_ids.append(1)
    assert second.new_token_ids == []
    assert second.started >= first.started
