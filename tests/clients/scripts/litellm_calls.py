"""LiteLLM: the service as an OpenAI-compatible and as an Anthropic provider."""

from __future__ import annotations

import json
import os

# Else it is fetched, and the service needs nothing from elsewhere.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import litellm
from common import CITIES, KEY, MODEL, PARAMETERS, QUESTION, URL, report

ask = [{"role": "user", "content": QUESTION}]
tool = {"type": "function", "function": {"name": "weather", "parameters": PARAMETERS}}
forced = {"type": "function", "function": {"name": "weather"}}
found = {}
for provider, base in (("openai", f"{URL}/v1"), ("anthropic", URL)):
    common = {"model": f"{provider}/{MODEL}", "api_base": base, "api_key": KEY, "messages": ask}
    whole = litellm.completion(**common, max_tokens=8)
    assert whole.choices[0].finish_reason in ("stop", "length")
    pieces = list(litellm.completion(**common, max_tokens=8, stream=True))
    called = litellm.completion(**common, tools=[tool], tool_choice=forced, max_tokens=64)
    (call,) = called.choices[0].message.tool_calls
    assert json.loads(call.function.arguments)["city"] in CITIES
    found[provider] = len(pieces)
response = litellm.responses(
    model=f"openai/{MODEL}", api_base=f"{URL}/v1", api_key=KEY, input=QUESTION, max_output_tokens=8
)
found["responses"] = response.status
report("litellm", **found)
