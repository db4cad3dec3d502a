from __future__ import annotations

import asyncio

import numpy as np
import pytest
from fake_serve import ACCURATE, FRUGAL, HANG, Site, StoreDouble

from deployments.router.sync.exchange import exchange
from deployments.router.sync.quality import QualitySource
from scheduler.prompts.features import BUCKETS, extract
from scheduler.prompts.quality import QualityModel


def model_of(accuracy: float) -> QualityModel:
    """Says `accuracy` of `frugal` and 0.9 of `accurate`, in prompts of the words known to it."""
    known = np.zeros(BUCKETS, dtype=bool)
    known[extract("what is the capital of france").words] = True
    return QualityModel(
        models=(ACCURATE, FRUGAL),
        means=np.array([0.5, 0.5]),
        idf=np.ones(BUCKETS),
        coefficients=np.zeros((BUCKETS, 2)),
        intercepts=np.array([0.9, accuracy]),
        known=known,
        usual=1.0,
        roots=np.array([0]),
        feature=np.array([0]),
        threshold=np.array([np.inf]),
        child=np.array([0]),
        leaf_scores=np.zeros((1, 2)),
        depth=0,
        forest_share=np.zeros(2),
        slope=np.ones(2),
        offset=np.zeros(2),
        bands=np.zeros((2, 0)),
        below=np.full((2, 1), 0.1),
        above=np.full((2, 1), 0.05),
        report={},
    )


MODEL = model_of(0.8)
ASKED = "What is the capital of France?"


def refresh(source: QualitySource, store: StoreDouble) -> None:
    asyncio.run(exchange(source, store))


def test_without_a_model_nothing_is_estimated(store: StoreDouble) -> None:
    source = QualitySource()
    refresh(source, store)
    assert source.current is None


def test_a_published_model_is_fetched_and_another_replaces_it(store: StoreDouble) -> None:
    source = QualitySource()
    for accuracy in (0.8, 0.3):
        version = store.state.publish_quality(model_of(accuracy).to_bytes())
        refresh(source, store)
        assert source.current is not None
        assert source.current.estimate(ASKED)[FRUGAL].accuracy == pytest.approx(accuracy)
        assert source.current.version == version


def test_a_store_that_lost_the_model_gets_it_back(store: StoreDouble) -> None:
    source = QualitySource()
    source.current = MODEL
    assert store.state.quality_version() is None
    refresh(source, store)
    assert store.state.quality_version() == MODEL.version


def test_a_model_that_cannot_be_read_changes_nothing(
    store: StoreDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = QualitySource()
    store.state.publish_quality(MODEL.to_bytes())
    refresh(source, store)
    monkeypatch.setattr(store.archive.state, "quality_version", lambda: "from-the-future")
    monkeypatch.setattr(store.archive.state, "quality", lambda: MODEL.to_bytes()[:-10])
    refresh(source, store)
    assert source.current is not None
    assert source.current.version == MODEL.version
    assert source.fault is not None
    assert "cut off" in source.fault
    # It is not fetched again.
    monkeypatch.setattr(store.archive.state, "quality", lambda: pytest.fail("asked again"))
    refresh(source, store)


def test_a_store_that_hangs(store: StoreDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deployments.router.sync.exchange.STORE_TIMEOUT_S", 0.01)
    store.fault = HANG
    with pytest.raises(TimeoutError):
        refresh(QualitySource(), store)


def test_a_router_takes_it_in_and_shows_it(site: Site, store: StoreDouble) -> None:
    body = {"model": "auto", "prompt": ASKED, "routing": {"weights": {"accuracy": 1}}}
    before = site.request("POST", "/v1/route", json=body).json()
    assert (before["task"], before["quality_source"]) == ("knowledge", "")
    assert [c["accuracy"] for c in before["candidates"]] == [0.9, 0.6]
    store.state.publish_quality(model_of(0.97).to_bytes())
    site.wait_until(
        lambda _: site.request("POST", "/v1/route", json=body).json()["quality_source"] != ""
    )
    after = site.request("POST", "/v1/route", json=body).json()
    assert after["model"] == FRUGAL
    frugal = after["candidates"][0]
    assert frugal["accuracy"] == pytest.approx(0.97)
    assert frugal["accuracy_interval"] == pytest.approx([0.87, 1.0])
    assert frugal["familiarity"] == 1
    # The last message of the user is what counts, and nothing is known of other words.
    chat = {
        "model": "auto",
        "messages": [
            {"role": "user", "content": ASKED},
            {"role": "assistant", "content": "Paris."},
            {"role": "user", "content": [{"type": "text", "text": "xyzzy plugh"}]},
        ],
    }
    strange = site.request("POST", "/v1/route", json=chat).json()
    assert [c["familiarity"] for c in strange["candidates"]] == [0, 0]
    tokens = site.request("POST", "/v1/route", json={"model": "auto", "prompt": [1, 2]}).json()
    assert [c["familiarity"] for c in tokens["candidates"]] == [0, 0]


def test_limits_are_shown_in_a_decision(site: Site) -> None:
    site.configure(
        models=[{"id": ACCURATE}, {"id": FRUGAL}], constrained={"otherwise": "best_effort"}
    )
    routing = {"policy": "constrained", "constraints": {"min_accuracy": 0.99}}
    body = {"model": "auto", "prompt": ASKED, "routing": routing}
    decision = site.request("POST", "/v1/route", json=body).json()
    assert decision["model"] == ACCURATE
    assert decision["limits"]["met"] is False
    assert decision["limits"]["otherwise"] == "best_effort"
    assert decision["limits"]["confidence"] == 0.9
    site.configure(models=[{"id": ACCURATE}, {"id": FRUGAL}])
    refused = site.request("POST", "/v1/route", json=body)
    assert refused.status_code == 422
    assert refused.json()["error"]["code"] == "constraints_not_met"
