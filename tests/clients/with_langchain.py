"""LangChain's ChatOpenAI: an answer with weights, and a stream."""

import sys

from langchain_openai import ChatOpenAI

chat = ChatOpenAI(
    model="auto",
    base_url=sys.argv[1],
    max_tokens=16,
    temperature=0,
    extra_body={"routing": {"weights": {"accuracy": 1}}},
)
answer = chat.invoke("What is the capital of France?")
assert answer.content
print(answer.response_metadata["model_name"], answer.content)
text = "".join(chunk.content for chunk in chat.stream("What is the capital of France?"))
assert text
print("stream:", text)
