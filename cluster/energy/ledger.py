"""Who used the joules: a counter's differences, split between the requests on its devices.

What the devices draw at rest was measured beforehand and is kept apart. The rest goes to the
requests by the tokens that were worked off for them. There is no clock here but the one given.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass

from cluster.energy.checks import CheckedCounter, Rest
from cluster.energy.counters import EnergyCounter
from cluster.store.load import TokenWeights
from scheduler.costs.profiles import LinearModel

PATIENCE_S = 10.0
"""So long joules wait for the tokens of a prefill; in a full engine requests wait longer."""
SHARE_S, SHARE_REFRESHES = 0.1, 5
"""Joules are given out so seldom: tokens come in bursts, at the end of each step of the engine, and
joules at each refresh of the counter."""
QUIET_S = 3.0
"""So long no request has been active before what the devices draw counts as that at rest: clocks
take their time to fall, and power is a mean over some of it."""
DECAY = 0.8
"""Weight of what was known of power and price when there is something newer."""
DEFAULT_WEIGHTS = TokenWeights(1.0, 20.0)
"""Until a model is profiled. A decoding step reads all the weights of the model for one token of
each request, a prefill reads them once for a whole prompt; what is left is the arithmetic, which
is the same. Profiles of 135M-parameter models on a CPU have a ratio of 25 to 27, those of 7B
models on a GPU 10 and more."""


def token_weights(energy: LinearModel) -> TokenWeights:
    """What a token costs by a model's fitted energy, at the beginning of a lone request."""
    nothing = energy.predict(0, 0)
    return usable(TokenWeights(energy.predict(1, 0) - nothing, energy.predict(0, 1) - nothing))


def usable(weights: TokenWeights) -> TokenWeights:
    """Weights by which joules can be split.

    A fit that says nothing of one kind of token (0, or less) means that it could not tell, not
    that they are free: the usual ratio is taken.
    """
    prefill, decode = weights
    if not (math.isfinite(prefill) and math.isfinite(decode) and decode > 0):
        return DEFAULT_WEIGHTS
    if prefill <= 0:
        prefill = decode * DEFAULT_WEIGHTS.prefill / DEFAULT_WEIGHTS.decode
    return TokenWeights(prefill, decode)


@dataclass(slots=True)
class _Account:
    """One active request.

    Attributes:
        began: Seconds on the clock.
        faults: The ledger's faults when it began.
        stake: The ledger's `_stake` then.
        joules: Given to it so far.
        work: Weighted tokens that have not been paid for.
        silent: No token of it was worked off yet: it waits, or is being prefilled.
    """

    began: float
    faults: int
    stake: float
    joules: float = 0.0
    work: float = 0.0
    silent: bool = True


class RequestLedger:
    """Splits one counter between concurrent requests.

    Joules gather in a pool until tokens are reported, and then go to the requests in proportion
    to their weighted tokens. A prefill reports its tokens only when it ends, so the pool waits
    while a request is active of which nothing was heard yet. A request that ends before, and all
    of them where no tokens are ever reported, gets its equal share of the time it was there.

    Every joule is in exactly one of `attributed_joules`, `idle_joules`, `unattributed_joules`
    and `pending_joules`; together they are what the checked counter rose by.

    A counter that is renewed only now and then is late: at the end of a request its last joules
    are not there yet. They are estimated from the latest power and taken from what the counter
    shows next; what the estimate was off by ends up in `unattributed_joules`.

    Not thread-safe: one event loop owns it.

    Args:
        counter: Of the devices.
        rest: The devices at rest, measured beforehand.
        slots: Requests that the engine runs side by side, `None` where that is not known.
        clock: Monotonic seconds.

    Attributes:
        counter: The counter with its checks.
        idle_watts: Power of the devices at rest.
        attributed_joules: Given to requests that have ended.
        idle_joules: Drawn at rest; at most `idle_watts` x time.
        unattributed_joules: Drawn beyond that while no request was active, or of requests of
            which it is not known; negative where more was given out than the counter showed.
        resting_watts: By device, what it drew when no request was last active for QUIET_S, with
            the models in its memory; empty until then. It is shown, and splits nothing.
    """

    def __init__(
        self,
        counter: EnergyCounter,
        *,
        rest: Rest | None = None,
        slots: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.counter = CheckedCounter(counter, rest and rest.refresh_s, clock)
        self.idle_watts = rest.watts if rest else 0.0
        self.attributed_joules = 0.0
        self.idle_joules = 0.0
        self.unattributed_joules = 0.0
        self.resting_watts: Mapping[str, float] = {}
        self._weights = DEFAULT_WEIGHTS
        self._slots = slots or math.inf
        self._share_s = max(SHARE_S, SHARE_REFRESHES * self.counter.refresh_s)
        self._active: dict[Hashable, _Account] = {}
        self._silent = 0
        self._faults = 0
        self._pool = 0.0
        self._held = 0.0
        # Weighted tokens since the pool was last given out; those paid for lately and what they
        # cost, decayed by DECAY; and when it was given out.
        self._work = self._paid_work = self._paid_joules = 0.0
        self._shared_at = self._busy_since = self._now = self.counter.moved_at
        self._quiet_since = self._now
        # Joules of a request that has been active all the time, were the pool split equally; now,
        # and when the pool was last given out.
        self._stake = self._stake_shared = 0.0
        # Of the device at work, decayed by DECAY.
        self._recent_joules = self._recent_s = 0.0

    @property
    def active(self) -> int:
        """Requests that have begun and not ended."""
        return len(self._active)

    @property
    def pending_joules(self) -> float:
        """Drawn for requests that have not ended; may be negative just after an estimate."""
        return self._pool + self._held

    @property
    def _prefilling(self) -> bool:
        """Whether a prompt may be in the works of which nothing was heard yet."""
        return self._silent > 0 and len(self._active) - self._silent < self._slots

    def set_weights(self, weights: TokenWeights) -> None:
        """Take the model's own cost of tokens, as `usable` makes it."""
        weights = usable(weights)
        if weights != self._weights:
            self._weights = weights
            self.forget_prices()

    def forget_prices(self) -> None:
        """Weighted tokens are in another unit from now on."""
        self._paid_work = self._paid_joules = 0.0

    def begin(self, key: Hashable) -> None:
        """A request arrives.

        Raises:
            ValueError: A request with this key is active.
        """
        if key in self._active:
            raise ValueError(f"key: request {key!r} has already begun")
        self.sample()
        if not self._active:
            self._busy_since = self._shared_at = self._now
        self._active[key] = _Account(self._now, self._faults, self._stake)
        self._silent += 1

    def tokens(self, key: Hashable, prefill: int, decode: int) -> None:
        """Tokens that were worked off for a request; those from a cache are none.

        Tokens of a request that has ended are ignored: an engine stops one step late.
        """
        self.work(key, self._weights.prefill * prefill + self._weights.decode * decode)

    def work(self, key: Hashable, amount: float) -> None:
        """The same in weighted tokens."""
        account = self._active.get(key)
        if account is None:
            return
        if account.silent:
            account.silent = False
            self._silent -= 1
        account.work += amount
        self._work += amount

    def sample(self) -> None:
        """Look at the counter; several times a second, so that joules meet their tokens."""
        step = self.counter.step(busy=bool(self._active))
        self._now = step.at
        idle = min(step.joules, self.idle_watts * step.seconds)
        self.idle_joules += idle
        dynamic = step.joules - idle
        if self._active:
            self._quiet_since = step.at
        elif step.at - self._quiet_since >= QUIET_S and self.counter.watts:
            self.resting_watts = dict(self.counter.watts)
        if not step.sound:
            self._faults += 1
            self.unattributed_joules += dynamic
        elif not self._active:
            if step.seconds:
                self.unattributed_joules += dynamic + self._pool
                self._pool = 0.0
        elif step.seconds:
            self._pool += dynamic
            self._stake += dynamic / len(self._active)
            self._recent_joules = DECAY * self._recent_joules + dynamic
            self._recent_s = DECAY * self._recent_s + step.seconds
            patience_s = PATIENCE_S if self._prefilling else self._share_s
            if step.at - self._shared_at >= patience_s:
                self._share()

    def end(self, key: Hashable) -> float | None:
        """A request is done.

        Returns:
            Its joules without those at rest, 0 or more; `None` where the counter failed or stood
            still over it.

        Raises:
            ValueError: No request with this key is active.
        """
        if key not in self._active:
            raise ValueError(f"key: request {key!r} has not begun")
        self.sample()
        account = self._active[key]
        due = self._due(account)
        known = account.faults == self._faults and self._seen(account)
        del self._active[key]
        self._silent -= account.silent
        self._work -= account.work
        self._pool -= due
        self._held -= account.joules
        if not self._active:
            # Keeps the differences exact however long the process lives.
            self._stake = self._stake_shared = self._work = self._held = 0.0
        joules = account.joules + due
        if not known:
            self.unattributed_joules += joules
            return None
        self.attributed_joules += joules
        return joules

    def _due(self, account: _Account) -> float:
        """What a request that ends gets of the pool."""
        pool = self._pool + self._unread_joules()
        if pool <= 0:
            return 0.0
        if len(self._active) == 1:
            return pool
        if account.silent or self._work <= 0:
            return min(pool, self._stake - max(account.stake, self._stake_shared))
        due = pool * min(account.work / self._work, 1.0)
        if self._prefilling and self._paid_work:
            # The pool holds joules of prefills that are not done yet.
            due = min(due, self._paid_joules / self._paid_work * account.work)
        return due

    def _unread_joules(self) -> float:
        """What has been drawn since the counter was last renewed, at the previous power."""
        if not self._recent_s:
            return 0.0
        unread_s = min(
            self._now - self.counter.renewed_at,
            self._now - self._busy_since,
            self.counter.refresh_s,
        )
        return self._recent_joules / self._recent_s * unread_s

    def _seen(self, account: _Account) -> bool:
        """Whether the counter says anything about a request."""
        if self.counter.moved_at > account.began:
            return True
        # Too short for the counter: there is an estimate once the power is known.
        took_s = self._now - account.began
        return took_s <= self.counter.refresh_s and self._recent_s > 0

    def _share(self) -> None:
        """Give the pool out by the tokens that were worked off since the last time."""
        joules = self._pool + self._unread_joules()
        if joules <= 0 or self._work <= 0:
            return
        price = joules / self._work
        for account in self._active.values():
            account.joules += price * account.work
            account.work = 0.0
        self._paid_joules = DECAY * self._paid_joules + joules
        self._paid_work = DECAY * self._paid_work + self._work
        self._held += joules
        self._pool -= joules
        self._work = 0.0
        self._stake_shared = self._stake
        self._shared_at = self._now
