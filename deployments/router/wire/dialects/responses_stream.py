"""A chat completion's stream as the events of a response of OpenAI's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deployments.router.wire.dialects.answers import Chunk, decision_id_of, event
from deployments.router.wire.dialects.errors import RESPONSES_NAMES, renamed
from deployments.router.wire.dialects.responses_answer import (
    Item,
    Tools,
    call_item,
    ending,
    item_id,
    logprobs_of,
    message_item,
    plain_input,
    reasoning_item,
    response_of,
    text_content,
    usage_of,
    whole_response,
)


class ResponseWriter:
    """One response.

    Args:
        asked: The body of the request.
        kept: Whether a later request can name it as its previous one.
        tools: Those whose names the model sees otherwise.
    """

    def __init__(self, asked: Mapping[str, Any], *, kept: bool, tools: Tools) -> None:
        self._asked = asked
        self._kept = kept
        self._tools = tools
        self._number = 0
        self._response: dict[str, Any] = {}
        self._decision_id = ""
        self._finish: str | None = None
        # The item that is open: its type, its members, its text so far.
        self._open: str | None = None
        self._item: Item = {}
        self._text: list[str] = []
        self._logprobs: list[Any] = []
        self._call: int | None = None
        self._tool = ""

    def whole(self, answer: Chunk) -> bytes:
        """See `Writer`."""
        return whole_response(self._asked, answer, kept=self._kept, tools=self._tools)

    def chunk(self, chunk: Chunk) -> bytes:
        """See `Writer`."""
        events = b""
        if not self._response:
            events = self._begin(chunk)
        for choice in chunk.get("choices") or ():
            events += self._choice(choice)
        if chunk.get("usage") and not chunk.get("choices"):
            self._response["usage"] = usage_of(chunk["usage"])
        if "routing" in chunk:
            self._response["routing"] = chunk["routing"]
        return events

    def end(self) -> bytes:
        """See `Writer`."""
        closed = self._close()
        self._response |= ending(self._finish)
        return closed + self._event(
            f"response.{self._response['status']}", {"response": self._response}
        )

    def fail(self, error: Mapping[str, Any]) -> bytes:
        """See `Writer`."""
        named = renamed(error, RESPONSES_NAMES)
        said = {name: named.get(name) for name in ("code", "message", "param")}
        events = self._event("error", said)
        if self._response:
            # The only codes that clients know are OpenAI's own.
            failure = {"code": "server_error", "message": said["message"]}
            self._response |= {"status": "failed", "error": failure}
            events += self._event("response.failed", {"response": self._response})
        return events

    def _event(self, kind: str, data: Mapping[str, Any]) -> bytes:
        number, self._number = self._number, self._number + 1
        return event(kind, {"type": kind, "sequence_number": number, **data})

    def _begin(self, chunk: Chunk) -> bytes:
        self._decision_id = decision_id_of(chunk)
        self._response = response_of(self._asked, chunk, kept=self._kept)
        return b"".join(
            self._event(f"response.{kind}", {"response": self._response})
            for kind in ("created", "in_progress")
        )

    def _choice(self, choice: Chunk) -> bytes:
        delta = choice.get("delta") or {}
        events = b""
        if reasoning := delta.get("reasoning"):
            if self._open != "reasoning":
                events += self._start_reasoning()
            self._text.append(reasoning)
            events += self._part_event("reasoning_text.delta", delta=reasoning)
        if content := delta.get("content"):
            if self._open != "message":
                events += self._start_message()
            self._text.append(content)
            logprobs = logprobs_of(choice.get("logprobs"))
            self._logprobs += logprobs
            events += self._part_event("output_text.delta", delta=content, logprobs=logprobs)
        for call in delta.get("tool_calls") or ():
            events += self._tool_call(call)
        if choice.get("finish_reason") is not None:
            self._finish = choice["finish_reason"]
        return events

    def _tool_call(self, call: Chunk) -> bytes:
        function = call.get("function") or {}
        number = call.get("index", 0)
        events = b""
        if self._open != "call" or self._call != number:
            if not function.get("name"):
                # Nothing says what is called: no item can begin with it.
                return events
            self._call = number
            events += self._start_call(call, function["name"])
        if arguments := function.get("arguments"):
            self._text.append(arguments)
            # The text of a plain input lies in JSON, and is sent once that is whole.
            if self._item["type"] == "function_call":
                events += self._item_event("function_call_arguments.delta", delta=arguments)
        return events

    def _start_reasoning(self) -> bytes:
        item = {**reasoning_item(self._name("rs"), ""), "content": []}
        return self._start("reasoning", item) + self._part_event(
            "content_part.added", part={"type": "reasoning_text", "text": ""}
        )

    def _start_message(self) -> bytes:
        item = message_item(self._name("msg"), "", "in_progress", []) | {"content": []}
        return self._start("message", item) + self._part_event(
            "content_part.added", part=text_content("", [])
        )

    def _start_call(self, call: Chunk, tool: str) -> bytes:
        item = {
            "id": self._name("fc"),
            "call_id": call.get("id") or self._name("call"),
            "name": tool,
            "status": "in_progress",
        }
        started = self._start("call", call_item(item, "", self._tools))
        self._tool = tool
        return started

    def _name(self, kind: str) -> str:
        closing = self._open is not None
        return item_id(kind, self._decision_id, len(self._response["output"]) + closing)

    def _start(self, kind: str, item: Item) -> bytes:
        closed = self._close()
        self._open, self._item = kind, item
        self._text, self._logprobs = [], []
        place = {"output_index": len(self._response["output"])}
        return closed + self._event("response.output_item.added", {**place, "item": item})

    def _close(self) -> bytes:
        if self._open is None:
            return b""
        kind, self._open = self._open, None
        text = "".join(self._text)
        cut = self._finish == "length"
        status = "incomplete" if cut else "completed"
        name = self._item["id"]
        if kind == "message":
            item = message_item(name, text, status, self._logprobs)
            events = self._part_event("output_text.done", text=text, logprobs=self._logprobs)
            events += self._part_event("content_part.done", part=item["content"][0])
        elif kind == "reasoning":
            item = reasoning_item(name, text)
            events = self._part_event("reasoning_text.done", text=text)
            events += self._part_event("content_part.done", part=item["content"][0])
        else:
            call = {"id": name, "call_id": self._item["call_id"], "name": self._tool}
            item = call_item({**call, "status": status}, text, self._tools)
            events = self._call_done(item, text)
        place = {"output_index": len(self._response["output"])}
        self._response["output"].append(item)
        return events + self._event("response.output_item.done", {**place, "item": item})

    def _call_done(self, item: Item, text: str) -> bytes:
        if item["type"] == "function_call":
            return self._item_event(
                "function_call_arguments.done", name=item["name"], arguments=text
            )
        given = plain_input(text)
        return self._item_event("custom_tool_call_input.delta", delta=given) + self._item_event(
            "custom_tool_call_input.done", input=given
        )

    def _part_event(self, kind: str, **data: Any) -> bytes:
        return self._item_event(kind, content_index=0, **data)

    def _item_event(self, kind: str, **data: Any) -> bytes:
        place = {"item_id": self._item["id"], "output_index": len(self._response["output"])}
        return self._event(f"response.{kind}", place | data)
