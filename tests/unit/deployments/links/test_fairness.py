from __future__ import annotations

import asyncio

import pytest

from deployments.links.fairness import Places, Turns


def test_a_few_go_on_at_once_and_the_rest_later_in_order() -> None:
    async def scenario() -> list[tuple[int, int]]:
        turns, loop_turn, granted = Turns(2), 0, []

        async def one(number: int) -> None:
            await turns.turn()
            granted.append((number, loop_turn))

        tasks = [asyncio.create_task(one(number)) for number in range(7)]
        while not all(task.done() for task in tasks):
            await asyncio.sleep(0)
            loop_turn += 1
        return granted

    granted = asyncio.run(scenario())
    assert [number for number, _ in granted] == list(range(7))
    by_turn = [turn for _, turn in granted]
    assert max(by_turn.count(turn) for turn in by_turn) == 2
    assert by_turn[:2] == [0, 0]


def test_who_is_cancelled_takes_no_place() -> None:
    async def scenario() -> bool:
        turns = Turns(1)
        await turns.turn()
        waiting = [asyncio.create_task(turns.turn()) for _ in range(3)]
        await asyncio.sleep(0)
        waiting[1].cancel()
        async with asyncio.timeout(1):
            await asyncio.gather(waiting[0], waiting[2])
        return waiting[1].cancelled()

    assert asyncio.run(scenario())


def test_one_alone_does_not_wait() -> None:
    async def scenario() -> None:
        turns = Turns(1)
        for _ in range(3):
            coroutine = turns.turn()
            try:
                coroutine.send(None)
            except StopIteration:
                pass
            else:
                raise AssertionError("it waits")
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    asyncio.run(scenario())


@pytest.mark.parametrize(("most", "of_one"), [(1, 1), (2, 1), (3, 2), (24, 18)])
def test_one_key_leaves_places_to_others(most: int, of_one: int) -> None:
    places = Places(most)
    for _ in range(of_one):
        assert not places.full("boss")
        places.take("boss")
    assert places.full("boss")
    assert places.full("ann") == (most == of_one)
    for _ in range(most - of_one):
        assert not places.full("")
        places.take("")
    assert places.full("")
    assert places.total == most
    places.free("boss")
    assert not places.full("ann")
    assert not places.full("boss")
