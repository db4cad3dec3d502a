"""LiteLLM as a client: an answer and a stream."""

import os
import sys

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import litellm

common = {
    "model": "openai/auto",
    "api_base": sys.argv[1],
    "api_key": os.environ["OPENAI_API_KEY"],
    "messages": [{"role": "user", "content": "What is the capital of France?"}],
    "max_tokens": 16,
    "temperature": 0,
}
answer = litellm.completion(**common, extra_body={"routing": {"weights": {"energy": 1}}})
assert answer.choices[0].message.content
print(answer.model, answer.choices[0].message.content)
text = "".join(c.choices[0].delta.content or "" for c in litellm.completion(**common, stream=True))
assert text
print("stream:", text)
