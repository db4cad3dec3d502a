"""LangGraph: a tool loop over chat completions, and one over messages."""

from __future__ import annotations

from typing import Literal

from common import KEY, MODEL, QUESTION, URL, report
from langchain_anthropic import ChatAnthropic
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode

TURNS = 4


@tool
def weather(city: Literal["Oslo", "Rome"]) -> str:
    """The weather of a city."""
    return f"rain in {city}"


def loop(model: object) -> int:
    forced = model.bind_tools([weather], tool_choice="weather")

    def ask(state: MessagesState) -> dict[str, object]:
        turns = sum(message.type == "ai" for message in state["messages"])
        chosen = forced if turns < TURNS else model
        return {"messages": [chosen.invoke(state["messages"])]}

    def onward(state: MessagesState) -> str:
        return "tools" if state["messages"][-1].tool_calls else "__end__"

    graph = StateGraph(MessagesState)
    graph.add_node("ask", ask)
    graph.add_node("tools", ToolNode([weather]))
    graph.add_edge(START, "ask")
    graph.add_conditional_edges("ask", onward)
    graph.add_edge("tools", "ask")
    result = graph.compile().invoke({"messages": [("user", QUESTION)]})
    results = [message for message in result["messages"] if message.type == "tool"]
    assert len(results) == TURNS, result
    assert all(message.content.startswith("rain") for message in results)
    return len(results)


chat = ChatOpenAI(base_url=f"{URL}/v1", api_key=KEY, model=MODEL, max_tokens=64)
messages = ChatAnthropic(base_url=URL, api_key=KEY, model=MODEL, max_tokens=64)
pieces = [piece.content for piece in chat.stream(QUESTION)]
report("langgraph", chat=loop(chat), messages=loop(messages), pieces=len(pieces))
