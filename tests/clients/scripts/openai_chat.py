"""openai: chat completions, streams, a forced call, `auto`, errors."""

from __future__ import annotations

import json

import openai
from common import CITIES, KEY, MODEL, PARAMETERS, QUESTION, URL, report

client = openai.OpenAI(base_url=f"{URL}/v1/", api_key=KEY)
ask = [{"role": "user", "content": QUESTION}]
whole = client.chat.completions.create(model="gpt-4o", messages=ask, max_tokens=8)
assert whole.usage.completion_tokens <= 8
routing = whole.model_extra["routing"]
chunks = list(client.chat.completions.create(model=MODEL, messages=ask, max_tokens=8, stream=True))
assert chunks[-1].choices[0].finish_reason in ("length", "stop")
tool = {"type": "function", "function": {"name": "weather", "parameters": PARAMETERS}}
forced = {"type": "function", "function": {"name": "weather"}}
called = client.chat.completions.create(
    model=MODEL, messages=ask, tools=[tool], tool_choice=forced, max_tokens=64
)
(call,) = called.choices[0].message.tool_calls
assert json.loads(call.function.arguments)["city"] in CITIES
after = client.chat.completions.create(
    model=MODEL,
    messages=[
        *ask,
        called.choices[0].message,
        {"role": "tool", "tool_call_id": call.id, "content": "rain"},
    ],
    tools=[],
    max_tokens=8,
)
assert after.choices
try:
    client.chat.completions.create(model="nowhere", messages=ask)
except openai.NotFoundError as error:
    assert error.code == "model_not_found"
else:
    raise AssertionError("an unknown model was taken")
report("openai", whole=routing["policy"], chunks=len(chunks), call=call.function.arguments)
