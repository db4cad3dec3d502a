"""What worked is remembered whole, at a bounded cost for a death."""

from __future__ import annotations

import json

import pytest

from deployments.router.blame import suspects
from deployments.router.blame.fingerprints import Fingerprint, fingerprint
from deployments.router.blame.proven import MAX_BODY_BYTES, MAX_PROVEN, MAX_WAITING, Proven
from deployments.router.blame.suspects import Suspicion

MEMORY_S = 60.0


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The bodies that fingerprints were computed of."""
    bodies: list[bytes] = []

    def counting(body: bytes, key: str | None = None, *, pooled: bool = False) -> Fingerprint:
        bodies.append(body)
        return fingerprint(body, key, pooled=pooled)

    monkeypatch.setattr(suspects, "fingerprint", counting)
    return bodies


def constrained(number: int, items: int) -> bytes:
    choice = [f"{number}.{item}" for item in range(items)]
    return json.dumps({"prompt": "x", "structured_outputs": {"choice": choice}}).encode()


def test_plain_requests_have_no_fingerprint_until_a_death(computed: list[bytes]) -> None:
    proven = Proven(lambda: 0.0)
    bodies = [json.dumps({"prompt": f"Hello {number}, you."}).encode() for number in range(300)]
    for body in bodies:
        proven.add("m", Suspicion(body))
    assert not computed
    found = proven.on("m", MEMORY_S)
    assert computed == bodies[-MAX_PROVEN:]
    assert found == {fingerprint(body).whole for body in computed}


def test_a_death_costs_a_bounded_number_of_values(computed: list[bytes]) -> None:
    proven = Proven(lambda: 0.0)
    bodies = [constrained(number, 4000) for number in range(20)]
    for body in bodies:
        proven.add("m", Suspicion(body))
    before = len(computed)
    found = proven.on("m", MEMORY_S)
    at_the_death = computed[before:]
    assert at_the_death
    assert sum(body.count(b",") for body in at_the_death) <= MAX_WAITING
    assert found == {h for body in bodies for h in fingerprint(body).hashes}


def test_one_costly_request_has_its_fingerprint_at_once(computed: list[bytes]) -> None:
    body = b'{"prompt": [' + b"1," * (MAX_WAITING - 1) + b"1]}"
    assert len(body) > MAX_BODY_BYTES
    Proven(lambda: 0.0).add("m", Suspicion(body))
    assert not computed
    body = b'{"tools": [' + b"[]," * (MAX_BODY_BYTES // 3 - 10) + b"1]}"
    Proven(lambda: 0.0).add("m", Suspicion(body))
    assert computed == [body]


def test_only_the_model_and_the_latest_count() -> None:
    now = 0.0
    proven = Proven(lambda: now)
    proven.add("m", Suspicion(b'{"prompt": "old"}'))
    now = MEMORY_S
    proven.add("m", Suspicion(b'{"prompt": "new"}'))
    proven.add("other", Suspicion(b'{"prompt": "x"}'))
    assert proven.on("m", MEMORY_S) == {fingerprint(b'{"prompt": "new"}').whole}
