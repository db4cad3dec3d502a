"""The board of answers under any order of what routers do, against a model of what they may."""

from __future__ import annotations

from fake_clock import FakeClock
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from cluster.store.replies import (
    CLAIM_LEASE_S,
    KEEP_S,
    AnswerBoard,
    ClaimState,
    KeptAnswer,
)

IDS = st.sampled_from(["a", "b"])
PRINTS = st.sampled_from(["f", "g"])
ROUTERS = st.sampled_from(["r1", "r2", "r3"])
ROOM = 10**6


class BoardMachine(RuleBasedStateMachine):
    """Three routers, two keys, two requests.

    Attributes:
        held: Id of an answer -> router, fingerprint and end of the claim that it was given.
        kept: Id of an answer -> the first whole one that was handed in.
    """

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock(1_000_000.0)
        self.board = AnswerBoard(clock=self.clock, unix_clock=self.clock)
        self.held: dict[str, tuple[str, str, float]] = {}
        self.kept: dict[str, KeptAnswer] = {}

    @rule(seconds=st.sampled_from([0.1, 1.0, CLAIM_LEASE_S, KEEP_S / 3]))
    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.clock.now += seconds
        self.held = {i: h for i, h in self.held.items() if h[2] > self.clock.now}
        oldest = self.clock.now - KEEP_S
        self.kept = {i: a for i, a in self.kept.items() if a.finished_at > oldest}

    @rule(answer_id=IDS, fingerprint=PRINTS, router=ROUTERS)
    def claim(self, answer_id: str, fingerprint: str, router: str) -> None:
        """A router gets a claim only where no answer is kept and no other router generates."""
        claim = self.board.claim(answer_id, fingerprint, router)
        answer, holder = self.kept.get(answer_id), self.held.get(answer_id)
        if answer is not None:
            fits = answer.fingerprint == fingerprint
            assert claim.state is (ClaimState.ANSWERED if fits else ClaimState.OTHER_REQUEST)
            assert claim.answer == (answer if fits else None)
        elif holder is not None and holder[1] != fingerprint:
            assert claim.state is ClaimState.OTHER_REQUEST
        elif holder is not None and holder[0] != router:
            assert claim.state is ClaimState.TAKEN
        else:
            assert claim.state is ClaimState.YOURS
            self.held[answer_id] = router, fingerprint, self.clock.now + CLAIM_LEASE_S

    @rule(router=ROUTERS)
    def renew(self, router: str) -> None:
        """A router renews all that it holds."""
        mine = {i: h[1] for i, h in self.held.items() if h[0] == router}
        assert self.board.renew(router, mine) == self.board.board_id
        until = self.clock.now + CLAIM_LEASE_S
        self.held |= {i: (router, fingerprint, until) for i, fingerprint in mine.items()}

    @rule(answer_id=IDS, router=ROUTERS)
    def release(self, answer_id: str, router: str) -> None:
        """A router gives a claim up; those of others stay."""
        self.board.release(answer_id, router)
        if answer_id in self.held and self.held[answer_id][0] == router:
            del self.held[answer_id]

    @rule(answer_id=IDS, body=st.binary(max_size=20))
    def keep(self, answer_id: str, body: bytes) -> None:
        """A holder hands its answer in, or a late one does whose claim is over."""
        fingerprint = self.held[answer_id][1] if answer_id in self.held else "f"
        answer = KeptAnswer(fingerprint, (), body, self.clock.now)
        new = self.board.keep({answer_id: answer}, ROOM)
        self.held.pop(answer_id, None)
        assert new == (answer_id not in self.kept)
        self.kept.setdefault(answer_id, answer)

    @invariant()
    def what_is_kept_is_what_was_handed_in_first(self) -> None:
        """For every request with its key."""
        for answer_id, answer in self.kept.items():
            found = self.board.claim(answer_id, answer.fingerprint, "onlooker")
            assert found.answer == answer


TestBoard = BoardMachine.TestCase
TestBoard.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
