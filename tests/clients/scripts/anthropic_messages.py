"""anthropic: messages, their events, a tool loop, tokens, errors, and the key in `x-api-key`."""

from __future__ import annotations

import anthropic
from common import CITIES, KEY, MODEL, PARAMETERS, QUESTION, URL, report

client = anthropic.Anthropic(base_url=URL, api_key=KEY)
ask = [{"role": "user", "content": QUESTION}]
whole = client.messages.create(model=MODEL, messages=ask, max_tokens=8, system="Be brief.")
assert whole.stop_reason in ("end_turn", "max_tokens")
with client.messages.stream(model=MODEL, messages=ask, max_tokens=8) as stream:
    pieces = list(stream.text_stream)
    final = stream.get_final_message()
assert "".join(pieces) == "".join(b.text for b in final.content if b.type == "text")
assert final.usage.input_tokens + (final.usage.cache_read_input_tokens or 0) > 0
tool = {"name": "weather", "description": "Weather of a city.", "input_schema": PARAMETERS}
forced = {"type": "tool", "name": "weather"}
with client.messages.stream(
    model=MODEL, messages=ask, tools=[tool], tool_choice=forced, max_tokens=64
) as stream:
    called = stream.get_final_message()
assert called.stop_reason == "tool_use"
(use,) = (block for block in called.content if block.type == "tool_use")
assert use.input["city"] in CITIES
result = {"type": "tool_result", "tool_use_id": use.id, "content": "rain"}
after = client.messages.create(
    model=MODEL,
    messages=[
        *ask,
        {"role": "assistant", "content": called.content},
        {"role": "user", "content": [result]},
    ],
    tools=[tool],
    tool_choice={"type": "none"},
    max_tokens=8,
)
assert after.role == "assistant"
count = client.messages.count_tokens(model=MODEL, messages=ask)
try:
    client.messages.create(model="nowhere", messages=ask, max_tokens=8)
except anthropic.NotFoundError as error:
    assert error.body["error"]["type"] == "not_found_error"
else:
    raise AssertionError("an unknown model was taken")
report("anthropic", pieces=len(pieces), call=use.input, tokens=count.input_tokens)
