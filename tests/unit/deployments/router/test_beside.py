"""Policies that are tried out: in the shadow of another one, and on a share of the traffic."""

from __future__ import annotations

from typing import Any

import pytest
from fake_serve import ACCURATE, FRUGAL, ServeDouble, Site

MODELS = [{"id": ACCURATE}, {"id": FRUGAL}]
ENERGY = {"weights": {"energy": 1}}


def record(site: Site, **body: Any) -> Any:
    headers = body.pop("headers", None)
    given = {"model": "auto", "prompt": "Hello"} | body
    answer = site.request("POST", "/v1/completions", json=given, headers=headers)
    assert answer.status_code == 200, answer.text
    found = site.get(f"/v1/decisions/{answer.headers['x-decision-id']}")
    assert answer.json()["routing"]["policy"] == found["policy"]
    return found


def test_both_are_off_by_default(site: Site) -> None:
    found = record(site)
    assert (found["shadow"], found["canary"]) == (None, False)


def test_a_shadow_decides_and_dispatches_nothing(site: Site, serve: ServeDouble) -> None:
    site.configure(models=MODELS, static_model=ACCURATE, shadow={"policy": "static"})
    found = record(site, routing=ENERGY)
    assert found["model"] == FRUGAL
    assert found["shadow"] == {"policy": "static", "model": ACCURATE, "reason": ""}
    assert serve.models[ACCURATE].calls == []
    dry = site.request("POST", "/v1/route", json={"model": "auto", "prompt": "Hello"}).json()
    assert dry["shadow"]["model"] == ACCURATE
    assert record(site, model=FRUGAL)["shadow"] is None


def test_a_shadow_that_refuses_does_no_harm(site: Site) -> None:
    # These profiles have no reference moments.
    site.configure(models=MODELS, shadow={"policy": "utility"})
    shadow = record(site)["shadow"]
    assert shadow["model"] is None
    assert "needs reference means" in shadow["reason"]


def canaries(site: Site, count: int = 200, **body: Any) -> list[bool]:
    return [record(site, prompt=f"Question {n}", **body)["canary"] for n in range(count)]


def test_a_canary_gets_its_share_and_sessions_stick_to_it(site: Site) -> None:
    site.configure(models=MODELS, canary={"policy": "round_robin", "share": 0.25})
    got = canaries(site)
    # 50 expected, standard deviation 6; the hash is fixed, so this never flickers.
    assert 30 < sum(got) < 70
    assert got[:20] == canaries(site, 20)
    for kind in ({"user": "ann"}, {"headers": {"x-session-id": "s1"}}):
        assert len(set(canaries(site, 10, **kind))) == 1
    both = {record(site, headers={"x-session-id": f"s{n}"})["canary"] for n in range(30)}
    assert both == {True, False}


def test_a_canary_is_named_as_the_policy(site: Site) -> None:
    site.configure(models=MODELS, canary={"policy": "static", "share": 1.0})
    found = record(site)
    assert (found["policy"], found["canary"]) == ("static", True)
    # Who names a policy or a model gets that.
    named = record(site, routing={"policy": "weighted"})
    assert (named["policy"], named["canary"]) == ("weighted", False)
    assert record(site, model=FRUGAL)["policy"] == "pinned"


def test_turns_of_a_chat_stick_together(site: Site) -> None:
    site.configure(models=MODELS, canary={"policy": "static", "share": 0.5})

    def canary(*said: str) -> bool:
        roles = ("user", "assistant")
        messages = [{"role": roles[n % 2], "content": text} for n, text in enumerate(said)]
        body = {"model": "auto", "messages": messages}
        return bool(site.request("POST", "/v1/route", json=body).json()["canary"])

    for start in ("Hi", "Who are you?", "Add 2 and 2"):
        assert canary(start) == canary(start, "Well.", "And now?") == canary(start, "a", "b", "c")
    assert {canary(f"Hi {n}") for n in range(20)} == {True, False}


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"shadow": {"policy": "best"}}, "shadow.policy"),
        ({"canary": {"policy": "weighted"}}, "canary.share"),
        ({"canary": {"policy": "weighted", "share": 1.5}}, "canary.share"),
        ({"bandit": {"algorithm": "greedy"}}, "bandit.algorithm"),
        ({"bandit": {"ridge": 0}}, "bandit.ridge"),
        ({"bandit": {"explorations_per_hour": -1}}, "bandit.explorations_per_hour"),
    ],
)
def test_wrong_settings_are_named(site: Site, config: dict[str, Any], said: str) -> None:
    site.configure(models=MODELS, **config)
    (fault,) = site.get("/health")["faults"]
    assert said in fault
