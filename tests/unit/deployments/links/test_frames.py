from __future__ import annotations

import json
from dataclasses import replace

import pytest
from fake_serve import observation
from hypothesis import given
from hypothesis import strategies as st

from deployments.links.frames import decode_observation, encode_observation, with_member

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@pytest.mark.parametrize("ttft_s", [0.125, None])
def test_an_observation_comes_back(ttft_s: float | None) -> None:
    sent = replace(observation("m"), ttft_s=ttft_s, energy_joules=1 / 3)
    assert decode_observation(encode_observation(sent)) == sent


@given(st.dictionaries(st.text().filter(lambda key: key != "routing"), JSON), JSON)
def test_a_member_is_added_to_any_object(members: dict[str, object], value: object) -> None:
    encoded = json.dumps(members).encode()
    added = with_member(encoded, b"routing", json.dumps(value).encode())
    assert json.loads(added) == {**members, "routing": value}


@pytest.mark.parametrize("empty", [b"{}", b"{ }", b"{\n}\n"])
def test_an_empty_object_gets_no_comma(empty: bytes) -> None:
    assert json.loads(with_member(empty, b"a", b"1")) == {"a": 1}


def test_an_event_stays_an_event() -> None:
    assert with_member(b'data: {"a": {"b": 1}}\n\n', b"c", b"2") == (
        b'data: {"a": {"b": 1},"c":2}\n\n'
    )
