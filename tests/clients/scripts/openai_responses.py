"""openai: responses, their events, a forced call, and what follows a response."""

from __future__ import annotations

import json

import openai
from common import CITIES, KEY, MODEL, PARAMETERS, QUESTION, URL, report

client = openai.OpenAI(base_url=f"{URL}/v1", api_key=KEY)
first = client.responses.create(
    model=MODEL, input=QUESTION, instructions="Be brief.", max_output_tokens=8
)
assert first.status in ("completed", "incomplete")
assert first.usage.output_tokens <= 8
with client.responses.stream(model=MODEL, input=QUESTION, max_output_tokens=8) as stream:
    events = list(stream)
kinds = [event.type for event in events]
assert kinds[0] == "response.created"
assert kinds[-1] in ("response.completed", "response.incomplete")
deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
assert "".join(deltas) == events[-1].response.output_text
tool = {"type": "function", "name": "weather", "parameters": PARAMETERS, "strict": True}
called = client.responses.create(
    model=MODEL,
    input=QUESTION,
    tools=[tool],
    tool_choice={"type": "function", "name": "weather"},
    max_output_tokens=64,
)
(call,) = (item for item in called.output if item.type == "function_call")
assert json.loads(call.arguments)["city"] in CITIES
output = {"type": "function_call_output", "call_id": call.call_id, "output": "rain"}
after = client.responses.create(
    model=MODEL, previous_response_id=called.id, input=[output], tools=[tool], max_output_tokens=8
)
assert after.previous_response_id == called.id
try:
    client.responses.create(model=MODEL, input="x", previous_response_id="resp_none")
except openai.NotFoundError as error:
    assert error.param == "previous_response_id"
else:
    raise AssertionError("a response that is not there was taken")
report("openai", events=len(kinds), call=call.arguments, follows=after.previous_response_id)
