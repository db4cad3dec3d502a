"""The two actors that keep what all routers share, and how to find them.

`board` is in memory and fast: load, claims, budgets, what routers tell each other. `archive` is
durable: profiles, decisions, feedback, what was learnt. They are two processes, so that no disk and
no long reading stands between a request and its claim.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import ray

from cluster.naming import HEAD_RESOURCE
from cluster.store.archive.archive import Archive
from cluster.store.board import Board
from cluster.store.replies import CLAIM_GRACE_S

BOARD_NAME = "dynamic-llm-scheduler-board"
ARCHIVE_NAME = "dynamic-llm-scheduler-archive"
STORE_NAMESPACE = "dynamic-llm-scheduler"
STORE_TIMEOUT_S = 10.0
"""How long its users wait for an answer: an actor that cannot be placed never gives one."""


class Store(NamedTuple):
    """The handles of both actors.

    Attributes:
        board: See `cluster.store.board.Board`.
        archive: See `cluster.store.archive.archive.Archive`.
    """

    board: Any
    archive: Any


def connect_store(data_dir: str | None = None) -> Store:
    """The handles of the store's actors.

    Args:
        data_dir: Makes the actors with this folder where they do not run yet; `None` only looks.

    Raises:
        ValueError: They do not run and `data_dir` is `None`.
    """
    if data_dir is None:
        names = (BOARD_NAME, ARCHIVE_NAME)
        return Store(*(ray.get_actor(name, namespace=STORE_NAMESPACE) for name in names))
    archive = _actor(ARCHIVE_NAME, Archive, data_dir)
    return Store(_actor(BOARD_NAME, Board, data_dir, CLAIM_GRACE_S, archive), archive)


def _actor(name: str, state: type, *args: object) -> Any:
    # On the head, which outlives the others: there `data_dir` is found again.
    actor_class = ray.remote(num_cpus=0, max_restarts=-1, resources={HEAD_RESOURCE: 0.001})(state)
    return actor_class.options(
        name=name, namespace=STORE_NAMESPACE, lifetime="detached", get_if_exists=True
    ).remote(*args)
