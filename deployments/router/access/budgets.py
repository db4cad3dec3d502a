"""What every API key may use in a minute, in an hour and on a day, over all routers.

A router decides by the sums that the store knew a second ago and by what it has done itself since;
a request never waits for the store. Tokens and joules are known when an answer ends. So a budget
can be overshot by the requests that are running when it is reached, and by what the other routers
let in within one exchange.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import NamedTuple

from cluster.store.actor import Store
from cluster.store.usage import PERIODS_S, Ledger, Period, Usage, add
from deployments.router.access.keys import BUDGETS, ApiKey
from deployments.router.sync.exchange import Exchange, Standing
from deployments.router.wire.api_error import ApiError
from scheduler.costs.observations import Observation
from scheduler.types import Decision, Prediction


class Budgets(Exchange[Ledger]):
    """One router's.

    Args:
        clock: Unix time.

    Attributes:
        keyed: There are API keys.
    """

    topic = "usage"

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self.keyed = True
        # As the store last said, what is being reported to it, and what is not reported yet.
        self._shared: Ledger = {}
        self._sent: Ledger = {}
        self._own: Ledger = {}

    def admit(self, key: ApiKey) -> Account:
        """Let one more request of a key in, and count it.

        Returns:
            What the answer is charged to.

        Raises:
            ApiError: 429, one of its budgets is used up; with the seconds until it is new.
        """
        now = self._clock()
        waits = {}
        for field, what, period_name in BUDGETS:
            limit = getattr(key, field)
            if limit is None:
                continue
            period = Period.at(period_name, now)
            if self._used(key.name, period, what) >= limit:
                waits[period.left_s(now)] = f"{field} of {limit:g}"
        if waits:
            # The last one to begin again decides.
            wait = max(waits)
            raise ApiError(
                429,
                f"the key {key.name!r} has used up its {waits[wait]}",
                code="budget_exceeded",
                retry_after_s=math.ceil(wait),
            )
        self._spend(key, Usage(requests=1), now)
        return Account(key, self)

    def charge(self, key: ApiKey, tokens: int, joules: float) -> None:
        """Count what an answer took."""
        self._spend(key, Usage(tokens=tokens, joules=joules), self._clock())

    def _spend(self, key: ApiKey, usage: Usage, now: float) -> None:
        add(self._own, {Period.at(name, now): {key.name: usage} for name in PERIODS_S})

    def _used(self, key: str, period: Period, what: str) -> float:
        ledgers = (self._shared, self._sent, self._own)
        used = (one.get(period, {}).get(key, Usage()) for one in ledgers)
        return math.fsum(getattr(usage, what) for usage in used)

    @property
    def wanted(self) -> bool:
        """Whether there are keys."""
        return self.keyed

    def take(self) -> Ledger | None:
        """What keys used at this router and the store does not know of."""
        now = self._clock()
        self._sent = {period: sums for period, sums in self._own.items() if period.left_s(now) > 0}
        self._own = {}
        return self._sent or None

    def give_back(self, batch: Ledger | None) -> None:
        """It is handed over the next time; counted twice, where only the answer was lost."""
        add(self._own, self._sent)
        self._sent = {}

    async def hand_over(self, store: Store, batch: Ledger | None) -> Standing:
        """The store answers with the sums of all routers."""
        self._shared = await store.board.spend.remote(batch or {})
        self._sent = {}
        return Standing.LEVEL


class Progress(NamedTuple):
    """What is known of an answer without its replica's word.

    Attributes:
        tokens: Generated as far as the router saw, `None` where it saw none of the answer.
        elapsed_s: Since it was sent to a model.
        rejected_joules: Of answers before it that the client did not get.
    """

    tokens: int | None
    elapsed_s: float = 0.0
    rejected_joules: float = 0.0


class Account(NamedTuple):
    """What one request is charged to."""

    key: ApiKey
    budgets: Budgets

    def charge(
        self,
        decision: Decision,
        observation: Observation | None,
        error: BaseException | None,
        progress: Progress,
    ) -> None:
        """Count what the answer took.

        Args:
            decision: What was predicted of it.
            observation: What it took, until its end or until it was stopped; `None` where no
                replica said so.
            error: Why it has no end. Where the client hung up or the time was over and nothing was
                observed, the tokens that were seen are charged, and as many of the predicted
                joules as they are of the predicted tokens; where none can be seen, as many tokens
                as were predicted for the time. Other breaks cost nothing.
            progress: What is known without the observation.
        """
        if progress.rejected_joules:
            self.budgets.charge(self.key, 0, progress.rejected_joules)
        if observation is not None:
            tokens = observation.input_tokens + observation.output_tokens
            self.budgets.charge(self.key, tokens, observation.energy_joules or 0.0)
        elif decision.candidates and _is_cut(error):
            predicted = decision.chosen.prediction
            generated = progress.tokens
            if generated is None:
                generated = _generated_within(progress.elapsed_s, predicted)
            share = generated / max(predicted.output_tokens, 1)
            tokens = predicted.input_tokens + generated
            self.budgets.charge(self.key, tokens, predicted.energy_joules * share)


def _generated_within(elapsed_s: float, predicted: Prediction) -> int:
    """The predicted tokens of so much of the predicted time, the wait aside."""
    service_s = predicted.runtime_s - predicted.wait_s
    share = max(elapsed_s - predicted.wait_s, 0.0) / service_s if service_s > 0 else 1.0
    return math.ceil(min(share, 1.0) * predicted.output_tokens)


def _is_cut(error: BaseException | None) -> bool:
    """Whether the client left before the end, instead of a model that broke."""
    if isinstance(error, Exception):
        return isinstance(error, ApiError) and error.code in ("timeout", "slow_reader")
    return error is not None
