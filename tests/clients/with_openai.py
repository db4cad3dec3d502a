"""The official client: an answer, a stream, weights beside the standard fields, tools, models."""

import sys

from openai import OpenAI

client = OpenAI(base_url=sys.argv[1])
question = [{"role": "user", "content": "What is the capital of France?"}]
models = {model.id for model in client.models.list()}
assert "auto" in models, models

for weights in ({"accuracy": 1}, {"energy": 1}):
    answer = client.chat.completions.create(
        model="auto",
        messages=question,
        max_tokens=16,
        temperature=0,
        extra_body={"routing": {"weights": weights}},
    )
    assert answer.model in models
    assert answer.choices[0].message.content
    assert answer.routing["actual"]["output_tokens"] == answer.usage.completion_tokens
    print(weights, answer.model, answer.choices[0].message.content)

stream = client.chat.completions.create(
    model="auto",
    messages=question,
    max_tokens=16,
    temperature=0,
    stream=True,
    stream_options={"include_usage": True},
)
chunks = list(stream)
text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
assert text
assert chunks[-1].usage.completion_tokens > 0
print("stream:", text)

completion = client.completions.create(
    model="auto", prompt="Once upon a time", max_tokens=8, temperature=0
)
assert completion.choices[0].text
