from __future__ import annotations

import json
from typing import Any

import pytest
from fake_serve import ACCURATE, FRUGAL, PROFILES, ServeDouble, Site

from scheduler.priority import Priority


@pytest.fixture
def probing(site: Site, monkeypatch: pytest.MonkeyPatch) -> Site:
    """A router of which one request was asked, and whose models have been idle for an hour."""
    site.complete()
    site.shared.learning.corrections.elapse(3600)
    return site


def probe(site: Site, elapsed_s: float = 5.0) -> None:
    site.runner.run(site.prober.probe(elapsed_s))


def probes(serve: ServeDouble) -> list[tuple[str, dict[str, Any]]]:
    return [
        (model.name, json.loads(call.request.body))
        for model in serve.models.values()
        for call in model.calls
        if call.request.request_id.startswith("probe-")
    ]


def test_an_idle_model_gets_a_short_request(probing: Site, serve: ServeDouble) -> None:
    for _ in range(4):
        probe(probing)
    asked = probes(serve)
    # Each once: afterwards they have just answered.
    assert sorted(model for model, _ in asked) == [ACCURATE, FRUGAL]
    for model, body in asked:
        assert body["model"] == model
        assert (body["max_tokens"], body["ignore_eos"]) == (8, True)
    assert asked[0][1]["prompt"] != asked[1][1]["prompt"]


def test_the_answer_is_learnt_and_no_decision_is_logged(probing: Site) -> None:
    before = len(probing.get("/v1/decisions")["data"])
    lessons = probing.shared.learning.lessons
    probe(probing)
    assert probing.shared.learning.lessons == lessons + 1
    assert len(probing.get("/v1/decisions")["data"]) == before


def test_nobody_is_probed_who_was_asked_lately(probing: Site, serve: ServeDouble) -> None:
    used = PROFILES.find(FRUGAL)
    assert used is not None
    probing.complete(routing={"models": [FRUGAL]})
    idle_s = probing.shared.learning.corrections.idle_s(FRUGAL, "test", used.fit_id)
    assert idle_s is not None
    assert idle_s < 300
    probe(probing)
    assert [model for model, _ in probes(serve)] == [ACCURATE]


def test_without_traffic_nobody_is_probed(site: Site, serve: ServeDouble) -> None:
    probe(site)
    assert not probes(serve)
    site.complete()
    probe(site, 1.0)
    site.shared.learning.corrections.elapse(3600)
    already = len(probes(serve))
    probe(site, 301.0)
    assert len(probes(serve)) == already


@pytest.mark.parametrize("interval", [None, 7200])
def test_it_can_be_rarer_or_never(probing: Site, serve: ServeDouble, interval: Any) -> None:
    for model in (ACCURATE, FRUGAL):
        probing.complete(routing={"models": [model]})
    probing.shared.learning.corrections.elapse(3600)
    probing.configure(models=[{"id": ACCURATE}, {"id": FRUGAL}], probe_interval_s=interval)
    probe(probing)
    assert not probes(serve)


def test_a_busy_or_missing_model_is_not_probed(probing: Site, serve: ServeDouble) -> None:
    probing.directory[ACCURATE].by_priority[Priority.NORMAL] = 1
    probing.directory[FRUGAL].unavailable = "gone"
    probe(probing)
    assert not probes(serve)
