"""What the router knows of feedback: the state that the store holds, ready for decisions.

Nothing is fetched until somebody wants the policy `bandit`.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

from cluster.store.actor import Store
from cluster.store.archive.feedback import HOUR_S, BanditNews
from deployments.config.learning import BanditConfig
from deployments.router.sync.exchange import Exchange, Standing
from scheduler.bandit.model import Bandit, BanditState
from scheduler.policies.bandit import BanditReport


class BanditSource(Exchange[Counter[int]]):
    """One router's copy.

    Args:
        clock: Unix time.

    Attributes:
        used: Some policy of the configuration or of a request is `bandit`.
        current: As of the last exchange with the store.
    """

    topic = "bandit"

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.used = False
        self.current = Bandit()
        self._clock = clock
        self._limit = BanditConfig().explorations_per_hour
        # In which hour, and how many the store knew of in it.
        self._shared = (0, 0)
        # By hour: not handed over yet, and being handed over.
        self._own: Counter[int] = Counter()
        self._sent: Counter[int] = Counter()
        self._known: tuple[int, int, bool] | None = None

    def configure(self, config: BanditConfig, *, wanted: bool) -> None:
        """Apply settings.

        Args:
            config: The settings.
            wanted: The configuration names a policy that learns from feedback.
        """
        self.used = self.used or wanted
        self._limit = config.explorations_per_hour
        self.current = Bandit(
            self.current.state, config.algorithm, config.ridge, config.exploration
        )

    @property
    def may_explore(self) -> bool:
        """Whether there is some exploration left in this hour."""
        hour = self._hour()
        shared = self._shared[1] if self._shared[0] == hour else 0
        return (
            not self.current.state.frozen
            and shared + self._own[hour] + self._sent[hour] < self._limit
        )

    def dispatched(self, report: BanditReport) -> None:
        """Count a decision that is acted on; from now on all decisions keep what teaches."""
        self.used = True
        if report.explored:
            self._own[self._hour()] += 1

    def take(self) -> Counter[int] | None:
        """Explorations of this router that the store does not know of, by hour."""
        self._sent, self._own = self._own, Counter()
        return self._sent or None

    def give_back(self, batch: Counter[int] | None) -> None:
        """They are counted the next time; twice, where only the answer was lost."""
        self._own += self._sent
        self._sent = Counter()

    async def hand_over(self, store: Store, batch: Counter[int] | None) -> Standing:
        """Tell what was explored; the store answers with what is new there."""
        news: BanditNews = await store.archive.bandit_news.remote(dict(batch or {}), self._known)
        self._sent = Counter()
        self._shared = (self._hour(), news.explored)
        mine = self.current.state
        if news.version[:2] < mine.version[:2]:
            return Standing.AHEAD
        if news.state is not None:
            self._take(BanditState.from_json(news.state))
        self._known = self.current.state.version
        return Standing.LEVEL

    async def restore(self, store: Store) -> None:
        """Give the store what feedback taught."""
        await store.archive.restore_bandit.remote(self.current.state.to_json())
        self._known = self.current.state.version

    def _take(self, state: BanditState) -> None:
        # What feedback taught stays in use, in a router that has started since too.
        self.used = self.used or bool(state.models)
        now = self.current
        self.current = Bandit(state, now.algorithm, now.ridge, now.exploration)

    def _hour(self) -> int:
        return int(self._clock() // HOUR_S)
