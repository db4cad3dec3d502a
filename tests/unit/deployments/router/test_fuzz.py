"""Every route, fuzzed from the router's own OpenAPI document; seeded, some 30 seconds."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import httpx
import pytest
import requests
import schemathesis
from fake_serve import FRUGAL, ServeDouble, Site
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from requests.structures import CaseInsensitiveDict
from schemathesis import Case, GenerationMode
from schemathesis.core.result import Ok
from schemathesis.schemas import APIOperation
from small_tokenizer import bundle, encoder

from deployments.router.access.caller import SESSION_HEADER
from deployments.router.access.idempotency import HEADER
from deployments.router.endpoints.openapi import document

SCHEMA = schemathesis.openapi.from_dict(document())
# `test_fuzz_dialects` changes valid bodies, which gets further into a conversation.
DIALECTS = ("/v1/messages", "/v1/messages/count_tokens", "/v1/responses")


def operations() -> Iterator[APIOperation[Any, Any, Any, Any]]:
    for result in SCHEMA.get_all_operations():
        assert isinstance(result, Ok), result
        operation = result.ok()
        if operation.path not in DIALECTS:
            yield operation


OPERATIONS = list(operations())
BY_NAME = ("/tokenize", "/detokenize", "/v1/embeddings", "/v1/rerank", "/v1/score")
BYTES = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
EXAMPLES = {"POST": 80, "GET": 15}


def send(site: Site, case: Case[Any]) -> httpx.Response:
    # No credentials, and nothing that a client cannot send.
    known = (HEADER, SESSION_HEADER.decode())
    keys = {n: v for n, v in (case.headers or {}).items() if n in known and str(v).isprintable()}
    case.headers = CaseInsensitiveDict({n: v for n, v in keys.items() if str(v).isascii()})
    prepared = requests.Request(**case.as_transport_kwargs(base_url="http://test")).prepare()
    return site.request(
        prepared.method or "",
        prepared.url or "",
        content=prepared.body,
        headers=dict(prepared.headers),
    )


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda o: o.label)
def test_nothing_breaks_the_router(
    serve: ServeDouble, start_site: Callable[..., Site], operation: Any
) -> None:
    serve.models[FRUGAL].bundle = replace(bundle(), encoder=encoder(decoder=BYTES))
    site = start_site()
    site.wait_until(lambda health: health["models"][FRUGAL]["input_tokens"]["fault"] is None)
    statuses: set[int] = set()
    known = site.complete().headers["x-decision-id"]

    @seed(5)
    @settings(
        max_examples=EXAMPLES[operation.method.upper()],
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(
        case=st.one_of(
            operation.as_strategy(generation_mode=GenerationMode.POSITIVE),
            operation.as_strategy(generation_mode=GenerationMode.NEGATIVE),
        ),
        scheduled=st.booleans(),
    )
    def fuzz(case: Case[Any], scheduled: bool) -> None:
        # Hardly ever does a name that was made up get past the first check.
        if scheduled and isinstance(case.body, dict):
            if "decision_id" in case.body:
                case.body["decision_id"] = known
            else:
                case.body["model"] = FRUGAL if operation.path in BY_NAME else "auto"
        response = send(site, case)
        statuses.add(response.status_code)
        assert response.status_code < 500, response.text
        if response.status_code >= 400:
            error = response.json()["error"]
            assert error["type"] == "invalid_request_error"
            assert error["message"]
        elif response.headers["content-type"] == "application/json":
            json.loads(response.content)

    fuzz()
    assert {200, 400} <= statuses or operation.method.upper() == "GET"
    # It lives, and owes nothing.
    models = site.get("/health")["models"].values()
    assert all(model["available"] and model["ongoing"] == 0 for model in models)
