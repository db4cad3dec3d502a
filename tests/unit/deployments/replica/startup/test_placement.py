from __future__ import annotations

import asyncio
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
from ray.serve.request_router import PendingRequest

from deployments.replica.startup.placement import TargetedRequestRouter


def replicas(*names: str) -> list[Any]:
    return [SimpleNamespace(replica_id=SimpleNamespace(unique_id=name)) for name in names]


def chosen(candidates: list[Any], **kwargs: Any) -> list[str]:
    # Without its __init__, which wants a running cluster; nothing of it is used.
    router = TargetedRequestRouter.__new__(TargetedRequestRouter)

    async def choose() -> list[list[Any]]:
        request = PendingRequest(args=[], kwargs=kwargs, metadata=None)
        return await router.choose_replicas(candidates, request)

    (rank,) = asyncio.run(choose())
    return [replica.replica_id.unique_id for replica in rank]


def test_two_of_all_are_tried() -> None:
    seen: Counter[str] = Counter()
    for _ in range(200):
        names = chosen(replicas("a", "b", "c"))
        assert len(set(names)) == 2
        seen.update(names)
    assert min(seen[name] for name in "abc") > 80


def test_the_target_is_the_only_choice() -> None:
    assert chosen(replicas("a", "b", "c"), target="b") == ["b"]
    assert chosen(replicas("a", "b", "c"), target="b", avoid=("b",)) == ["b"]


def test_a_target_that_is_gone_leaves_every_replica() -> None:
    assert set(chosen(replicas("a", "b"), target="z")) == {"a", "b"}


@pytest.mark.parametrize("avoid", [("a",), ("a", "z"), ["a"]])
def test_what_is_to_be_avoided_is(avoid: Any) -> None:
    for _ in range(20):
        assert set(chosen(replicas("a", "b", "c"), avoid=avoid)) == {"b", "c"}


def test_an_avoided_replica_beats_none() -> None:
    assert chosen(replicas("a"), avoid=("a",)) == ["a"]


@pytest.mark.parametrize("kwargs", [{}, {"target": None, "avoid": ()}, {"avoid": None}])
def test_one_replica_and_no_wishes(kwargs: dict[str, Any]) -> None:
    assert chosen(replicas("a"), **kwargs) == ["a"]


def test_no_replica_and_no_request() -> None:
    assert chosen([]) == []
    router = TargetedRequestRouter.__new__(TargetedRequestRouter)
    assert asyncio.run(router.choose_replicas([])) == [[]]
