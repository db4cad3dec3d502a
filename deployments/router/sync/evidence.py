"""What requests did to engines, shared with the other routers."""

from __future__ import annotations

from cluster.store.actor import Store
from cluster.store.evidence import Evidence
from cluster.store.evidence import Exchange as Answer
from deployments.router.blame.judge import Blame
from deployments.router.sync.exchange import Exchange, Standing


class SharedEvidence(Exchange[list[Evidence]]):
    """One router's blame and that of the others.

    Args:
        blame: Of this router.
        router_id: Which router this is.
    """

    period_s = 0.25
    topic = "evidence"

    def __init__(self, blame: Blame, router_id: str) -> None:
        self._blame = blame
        self._router_id = router_id
        self._number = 0
        self._told_trials: frozenset[str] = frozenset()

    def take(self) -> list[Evidence] | None:
        """What is new here; also where suspects run, again and again, and that none does."""
        news = self._blame.take_evidence()
        trials = self._blame.own_trials()
        return news if news or trials or self._told_trials else None

    def give_back(self, batch: list[Evidence] | None) -> None:
        """It waits for the next time."""
        self._blame.give_back(batch or ())

    async def hand_over(self, store: Store, batch: list[Evidence] | None) -> Standing:
        """The board answers with what other routers observed."""
        trials = self._blame.own_trials()
        got: Answer = await store.board.exchange_evidence.remote(
            self._router_id, self._number, batch or [], sorted(trials)
        )
        self._number, self._told_trials = got.number, trials
        self._blame.hear(got.news, got.trials)
        return Standing.LEVEL
