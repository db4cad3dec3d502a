from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated_engine import IDLE_WATTS, TRUE_JOULES, Device, Request, run

from cluster.energy.checks import Rest
from cluster.energy.ledger import DEFAULT_WEIGHTS, RequestLedger, token_weights, usable
from cluster.store.load import TokenWeights
from scheduler.costs.profiles import LinearModel


class Bench:
    """A counter and a clock that the test moves, and a ledger on them."""

    source = "nvml"
    refresh_s = 0.0
    limits = {"GPU-a": 1e9}  # noqa: RUF012

    def __init__(self, rest: Rest | None = None, slots: int | None = None) -> None:
        self.joules = 1000.0
        self.now = 0.0
        self.ledger = RequestLedger(self, rest=rest, slots=slots, clock=lambda: self.now)

    def read(self) -> dict[str, float]:
        return {"GPU-a": self.joules}

    def draw(self, joules: float, seconds: float = 1.0) -> None:
        self.now += seconds
        self.joules += joules

    @property
    def counted(self) -> float:
        ledger = self.ledger
        return (
            ledger.attributed_joules
            + ledger.idle_joules
            + ledger.unattributed_joules
            + ledger.pending_joules
        )


def test_joules_follow_the_tokens_by_hand() -> None:
    bench = Bench(Rest(10.0))
    ledger = bench.ledger
    ledger.set_weights(TokenWeights(1.0, 10.0))
    bench.draw(30, seconds=3)  # nobody is there
    ledger.begin("a")
    bench.draw(10 + 100)
    ledger.tokens("a", 90, 1)  # 100 units
    ledger.sample()  # a gets 100 J
    ledger.begin("b")
    bench.draw(10 + 300)
    ledger.sample()  # waits for what b says of its prefill
    ledger.tokens("a", 0, 2)  # 20 units
    ledger.tokens("b", 270, 1)  # 280 units
    assert ledger.end("a") == pytest.approx(100 + 300 * 20 / 300)
    assert ledger.pending_joules == pytest.approx(280)
    bench.draw(10 + 50)
    ledger.tokens("b", 0, 1)
    assert ledger.end("b") == pytest.approx(280 + 50)
    assert ledger.attributed_joules == pytest.approx(450)
    assert ledger.idle_joules == 30 + 30
    assert (ledger.unattributed_joules, ledger.pending_joules, ledger.active) == (0, 0, 0)


def test_what_exceeds_the_power_at_rest_while_nobody_is_there_is_kept_apart() -> None:
    bench = Bench(Rest(10.0))
    bench.draw(25)
    bench.ledger.sample()
    bench.draw(4)  # it rests deeper than it did when it was measured
    bench.ledger.sample()
    assert (bench.ledger.idle_joules, bench.ledger.unattributed_joules) == (14, 15)


def test_the_power_at_rest_is_seen_again_whenever_nothing_runs_for_a_while() -> None:
    bench = Bench(Rest(60.0))
    ledger = bench.ledger

    def pass_seconds(watts: float, seconds: int) -> None:
        for _ in range(seconds):
            bench.draw(watts)
            ledger.sample()

    pass_seconds(70, 2)
    assert ledger.resting_watts == {}
    pass_seconds(70, 2)
    assert ledger.resting_watts == {"GPU-a": pytest.approx(70)}
    ledger.begin("a")
    ledger.tokens("a", 1, 1)
    pass_seconds(500, 5)
    assert ledger.resting_watts == {"GPU-a": pytest.approx(70)}
    ledger.end("a")
    pass_seconds(200, 2)  # its clocks fall
    assert ledger.resting_watts == {"GPU-a": pytest.approx(70)}
    pass_seconds(80, 3)
    assert ledger.resting_watts == {"GPU-a": pytest.approx(80)}
    # What is given out goes by what was measured beforehand.
    assert ledger.idle_watts == 60.0


def test_where_no_tokens_are_told_the_time_is_shared() -> None:
    bench = Bench()
    ledger = bench.ledger
    ledger.begin("a")
    bench.draw(10)  # a
    ledger.begin("b")
    bench.draw(20)  # a and b
    assert ledger.end("a") == pytest.approx(10 + 20 / 2)
    bench.draw(7)  # b
    assert ledger.end("b") == pytest.approx(20 / 2 + 7)


def test_a_prefill_that_is_given_up_pays_for_the_time_that_it_was_there() -> None:
    bench = Bench()
    ledger = bench.ledger
    ledger.begin("a")
    bench.draw(10)
    ledger.tokens("a", 0, 1)
    ledger.sample()
    ledger.begin("cancelled")
    bench.draw(30)
    ledger.tokens("a", 0, 1)
    assert ledger.end("cancelled") == pytest.approx(15)
    assert ledger.end("a") == pytest.approx(10 + 15)


def test_one_that_ends_beside_a_prefill_does_not_pay_for_it() -> None:
    bench = Bench()
    ledger = bench.ledger
    ledger.begin("a")
    bench.draw(20)
    ledger.tokens("a", 0, 1)
    ledger.sample()  # 20 J a token
    ledger.begin("b")
    bench.draw(20 + 500)
    ledger.tokens("a", 0, 1)
    assert ledger.end("a") == pytest.approx(20 + 20)
    ledger.tokens("b", 500, 1)
    assert ledger.end("b") == pytest.approx(500)


def test_the_last_one_takes_what_is_left() -> None:
    bench = Bench()
    ledger = bench.ledger
    ledger.begin("a")
    bench.draw(20)
    ledger.tokens("a", 0, 1)
    ledger.sample()
    ledger.begin("cancelled")
    bench.draw(20 + 500)
    ledger.tokens("a", 0, 1)
    assert ledger.end("a") == pytest.approx(20 + 20)
    assert ledger.end("cancelled") == pytest.approx(500)


def test_requests_that_only_wait_for_a_slot_hold_nothing_up() -> None:
    bench = Bench(slots=2)
    ledger = bench.ledger
    for key in ("a", "b", "queued"):
        ledger.begin(key)
    bench.draw(10)
    ledger.tokens("a", 0, 1)
    ledger.tokens("b", 0, 1)
    ledger.sample()
    bench.draw(12)
    assert ledger.end("queued") == pytest.approx(4)  # a third of the time since
    ledger.tokens("a", 0, 3)
    ledger.tokens("b", 0, 1)
    assert ledger.end("b") == pytest.approx(5 + 8 / 4)
    assert ledger.end("a") == pytest.approx(5 + 8 * 3 / 4)


def test_an_estimate_that_was_too_high_takes_nothing_from_those_that_follow() -> None:
    bench = Bench(Rest(0.0, 0.1))
    bench.refresh_s = 0.1
    ledger = bench.ledger
    ledger.begin("a")
    bench.draw(100)
    ledger.sample()
    bench.draw(0, seconds=0.05)
    # 100 W for 0.1 s that the counter may not have shown yet.
    assert ledger.end("a") == pytest.approx(110)
    ledger.begin("b")
    for _ in range(2):
        bench.draw(1)
        ledger.tokens("b", 0, 1)
        ledger.sample()
    assert ledger.end("b") == 0
    bench.draw(1)
    ledger.sample()
    assert ledger.unattributed_joules == pytest.approx(-7)
    assert ledger.pending_joules == 0


def test_tokens_of_a_request_that_is_gone_are_ignored() -> None:
    bench = Bench()
    bench.ledger.begin("a")
    bench.draw(5)
    bench.ledger.tokens("b", 100, 100)
    bench.ledger.tokens("a", 0, 1)
    assert bench.ledger.end("a") == 5


def test_keys_are_taken_once() -> None:
    bench = Bench()
    bench.ledger.begin("a")
    with pytest.raises(ValueError, match="request 'a' has already begun"):
        bench.ledger.begin("a")
    bench.draw(1)
    bench.ledger.end("a")
    with pytest.raises(ValueError, match="request 'a' has not begun"):
        bench.ledger.end("a")


def test_a_counter_that_falls_costs_its_requests_their_joules_and_nobody_elses() -> None:
    bench = Bench()
    ledger = bench.ledger
    ledger.begin("before")
    bench.draw(5)
    ledger.sample()
    bench.draw(-500)
    ledger.begin("after")
    bench.draw(8)
    ledger.tokens("before", 0, 1)
    ledger.tokens("after", 0, 1)
    assert ledger.end("before") is None
    bench.draw(2)
    assert ledger.end("after") == pytest.approx(13 / 2 + 2)
    assert ledger.unattributed_joules == pytest.approx(13 / 2)
    assert bench.counted == pytest.approx(5 + 8 + 2)


def test_a_counter_that_stands_still_over_a_request_says_nothing_of_it() -> None:
    bench = Bench()
    bench.ledger.begin("a")
    bench.now += 1.0
    assert bench.ledger.end("a") is None
    assert bench.ledger.attributed_joules == 0


def test_a_fit_weighs_the_tokens_as_it_predicts_them() -> None:
    shared = LinearModel("linear+shared", (5.0, 0.25, 1.0, 7.0, 0.25, 3.0))
    assert token_weights(shared) == TokenWeights(0.5, 4.0)


@pytest.mark.parametrize(
    ("fitted", "used"),
    [
        ((0.5, 4.0), (0.5, 4.0)),
        ((0.0, 4.0), (0.2, 4.0)),
        ((-1.0, 4.0), (0.2, 4.0)),
        ((0.5, 0.0), DEFAULT_WEIGHTS),
        ((0.5, math.nan), DEFAULT_WEIGHTS),
        ((math.inf, 1.0), DEFAULT_WEIGHTS),
    ],
)
def test_weights_that_no_fit_could_tell_are_the_usual_ones(
    fitted: tuple[float, float], used: tuple[float, float]
) -> None:
    assert usable(TokenWeights(*fitted)) == TokenWeights(*used)


# An engine at work, the joules of whose tokens are known.

WARM_UP = Request(0.0, 200, 200)
START_S = 3.0


def served(
    requests: list[Request], *, refresh_s: float = 0.0, slots: int = 64
) -> tuple[list[Request], Device, RequestLedger]:
    for request in requests:
        request.arrives += START_S
    warm_up = Request(WARM_UP.arrives, WARM_UP.prompt, WARM_UP.output)
    device, ledger = run([warm_up, *requests], refresh_s=refresh_s, slots=slots)
    return [warm_up, *requests], device, ledger


arrivals = st.floats(0, 3)
prompts = st.integers(10, 3000)
outputs = st.integers(5, 150)
requests = st.lists(st.builds(Request, arrivals, prompts, outputs), min_size=1, max_size=12)
slots = st.sampled_from([2, 4, 64])


@settings(deadline=None, max_examples=40)
@given(requests=requests, slots=slots, refresh_s=st.sampled_from([0.0, 0.02, 0.1]))
def test_every_joule_is_in_one_place(requests: list[Request], slots: int, refresh_s: float) -> None:
    _, device, ledger = served(requests, slots=slots, refresh_s=refresh_s)
    shown = device.read()["GPU-a"]
    assert ledger.pending_joules == 0
    total = ledger.attributed_joules + ledger.idle_joules + ledger.unattributed_joules
    assert total == pytest.approx(shown, rel=1e-9)


@settings(deadline=None, max_examples=40)
@given(requests=requests, slots=slots)
def test_what_was_given_and_the_rest_are_the_counter(requests: list[Request], slots: int) -> None:
    everyone, device, ledger = served(requests, slots=slots)
    given_out = [request.joules for request in everyone]
    assert None not in given_out
    total = sum(joules for joules in given_out if joules is not None)
    assert total == pytest.approx(ledger.attributed_joules)
    assert total + IDLE_WATTS * device.now == pytest.approx(device.joules, rel=0.01)


@settings(deadline=None, max_examples=40)
@given(
    prompt=prompts,
    output=st.integers(100, 200),
    arrivals=st.lists(arrivals, min_size=2, max_size=8),
    weights=st.sampled_from([TRUE_JOULES, DEFAULT_WEIGHTS]),
)
def test_equal_requests_that_overlap_get_the_same(
    prompt: int, output: int, arrivals: list[float], weights: TokenWeights
) -> None:
    equal = [Request(arrives, prompt, output) for arrives in arrivals]
    served(equal)
    joules = [request.joules for request in equal if request.joules is not None]
    assert len(joules) == len(equal)
    assert max(joules) <= 1.05 * min(joules)


@settings(deadline=None, max_examples=40)
@given(requests=requests)
def test_requests_get_what_their_tokens_cost(requests: list[Request]) -> None:
    everyone, _, _ = served(requests)
    for request in everyone:
        # A step of the engine is up to 30 J, and the counter is not read at its ends.
        assert request.joules == pytest.approx(request.true_joules, rel=0.05, abs=5.0)


@settings(deadline=None, max_examples=40)
@given(prompt=prompts, output=outputs, arrives=arrivals)
def test_a_lone_request_gets_all_but_the_rest(prompt: int, output: int, arrives: float) -> None:
    (_, lone), device, _ = served([Request(arrives, prompt, output)])
    drawn = device.joules - IDLE_WATTS * device.now - WARM_UP.true_joules
    assert lone.joules == pytest.approx(drawn, rel=0.05)


@settings(deadline=None, max_examples=40)
@given(
    prompt=prompts, output=st.integers(500, 800), arrives=arrivals, refresh_s=st.floats(0.01, 0.1)
)
def test_a_lone_request_gets_what_a_late_counter_has_not_shown_yet(
    prompt: int, output: int, arrives: float, refresh_s: float
) -> None:
    (_, lone), device, ledger = served([Request(arrives, prompt, output)], refresh_s=refresh_s)
    assert lone.joules == pytest.approx(lone.true_joules, rel=0.05)
    assert abs(ledger.unattributed_joules) <= 0.06 * device.joules


def test_a_request_that_is_shorter_than_the_refresh_is_estimated() -> None:
    (_, short), _, _ = served([Request(0.014, 1, 4)], refresh_s=0.1)
    assert short.joules == pytest.approx(short.true_joules, rel=0.3)


# A counter that does what it wants.

readings = st.one_of(
    st.floats(0, 100), st.floats(-1e9, 1e9), st.just(math.nan), st.just(0.0), st.none()
)
events = st.lists(
    st.tuples(
        st.sampled_from(["begin", "tokens", "end", "sample"]),
        st.integers(0, 4),
        readings,
        st.floats(0, 2),
    ),
    max_size=60,
)


class Unruly(Bench):
    limits = {"GPU-a": 1000.0}  # noqa: RUF012
    failing = False

    def read(self) -> dict[str, float]:
        if self.failing:
            raise OSError("gone")
        return super().read()


@settings(deadline=None, max_examples=300)
@given(events=events, refresh_s=st.sampled_from([0.0, 0.1]))
def test_no_counter_yields_a_negative_or_a_huge_number(
    events: list[tuple[str, int, float | None, float]], refresh_s: float
) -> None:
    bench = Unruly(Rest(5.0, refresh_s))
    ledger = bench.ledger
    active: dict[int, bool] = {}  # whether all was well since it began
    for event, key, joules, seconds in events:
        before, was_failing = bench.joules, bench.failing
        bench.failing = joules is None
        bench.draw(joules or 0.0, seconds)
        faulty = bench.failing or math.isnan(bench.joules) or bench.joules < before
        if event == "begin" and key not in active:
            ledger.begin(key)
            active[key] = True
        elif event == "end" and key in active:
            given_out = ledger.end(key)
            assert given_out is None or 0 <= given_out <= 1000.0 * (bench.now + 0.2 * len(events))
            if faulty or was_failing or not active.pop(key, True):
                assert given_out is None
            active.pop(key, None)
        elif event == "tokens":
            ledger.tokens(key, 10, 1)
            ledger.sample()
        else:
            ledger.sample()
        if faulty or was_failing:
            active = {k: ok and (event == "begin" and k == key) for k, ok in active.items()}
        if math.isnan(bench.joules):
            bench.joules = before
        assert ledger.idle_joules >= 0
        assert ledger.attributed_joules >= 0
        assert all(map(math.isfinite, (ledger.unattributed_joules, ledger.pending_joules)))
