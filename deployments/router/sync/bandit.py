"""What the router knows of feedback: the state that the store holds, ready for decisions.

Nothing is fetched until somebody wants the policy `bandit`.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable

from cluster.store.actor import STORE_TIMEOUT_S, Store
from cluster.store.feedback import HOUR_S, BanditNews
from deployments.config.learning import BanditConfig
from scheduler.bandit.model import Bandit, BanditState
from scheduler.policies.bandit import BanditReport


class BanditSource:
    """One router's copy.

    Args:
        clock: Unix time.

    Attributes:
        wanted: Some policy of the configuration or of a request is `bandit`.
        current: As of the last exchange with the store.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.wanted = False
        self.current = Bandit()
        self._clock = clock
        self._limit = BanditConfig().explorations_per_hour
        # In which hour, and how many the store knew of in it.
        self._shared = (0, 0)
        self._own: Counter[int] = Counter()
        self._known: tuple[int, int, bool] | None = None

    def configure(self, config: BanditConfig, *, wanted: bool) -> None:
        """Apply settings.

        Args:
            config: The settings.
            wanted: The configuration names a policy that learns from feedback.
        """
        self.wanted = self.wanted or wanted
        self._limit = config.explorations_per_hour
        self.current = Bandit(
            self.current.state, config.algorithm, config.ridge, config.exploration
        )

    @property
    def may_explore(self) -> bool:
        """Whether there is some exploration left in this hour."""
        hour = self._hour()
        shared = self._shared[1] if self._shared[0] == hour else 0
        return not self.current.state.frozen and shared + self._own[hour] < self._limit

    def dispatched(self, report: BanditReport) -> None:
        """Count a decision that is acted on; from now on the state is fetched from the store."""
        self.wanted = True
        if report.explored:
            self._own[self._hour()] += 1

    async def exchange(self, store: Store) -> None:
        """Tell what was explored, fetch what is new, give back what the store lost.

        Args:
            store: Handles of its actors.

        Raises:
            TimeoutError: The store does not answer. It may have counted what was explored.
            RayError: It is away; what was explored is kept.
            LearningError: It holds nonsense.
        """
        if not self.wanted:
            return
        sent = dict(self._own)
        async with asyncio.timeout(STORE_TIMEOUT_S):
            news: BanditNews = await store.archive.bandit_news.remote(sent, self._known)
            self._own -= Counter(sent)
            self._shared = (self._hour(), news.explored)
            mine = self.current.state
            if news.version[:2] < mine.version[:2]:
                await store.archive.restore_bandit.remote(mine.to_json())
            elif news.state is not None:
                self._take(BanditState.from_json(news.state))
        self._known = self.current.state.version

    def _take(self, state: BanditState) -> None:
        now = self.current
        self.current = Bandit(state, now.algorithm, now.ridge, now.exploration)

    def _hour(self) -> int:
        return int(self._clock() // HOUR_S)
