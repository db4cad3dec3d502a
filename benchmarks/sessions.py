"""What remembering conversations costs the router, and what it gains.

    python benchmarks/sessions.py [--live] [--json]

One process, one core: `turn` hashes the messages of a chat request, `recall` looks the conversation
up for the decision, `remember` takes in where it was answered; together they are what a request
pays. The conversations have turns of 400 characters.

`--live` brings the embedded models up and has conversations with them that begin with a long
message: seconds to the first token of the first turn, of the second, and of a second turn whose
beginning is in no cache.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable
from typing import Any

import httpx
from embedded_models import embedded_models
from rich.console import Console
from servers import Server

from deployments.router.decision.advisors.sessions import SessionsAdvisor, turn_of
from deployments.router.models import ModelDirectory
from deployments.router.wire.openai import parse_request
from scheduler.costs.observations import Observation

TURNS = (1, 5, 20, 100)
CHARACTERS = 400
REPEATS = 2000
CONVERSATIONS = 8
LONG_WORDS = 400


def measure(turns: int) -> dict[str, float]:
    """Median microseconds of each step for a conversation of so many turns."""
    text = "a few words of which a message is made, " * (CHARACTERS // 40)
    messages = [{"role": "user", "content": text}]
    for _ in range(turns - 1):
        messages += [{"role": "assistant", "content": text}, {"role": "user", "content": text}]
    body = json.dumps({"model": "auto", "messages": messages}).encode()
    parsed = parse_request(body, "chat")
    directory = ModelDirectory()
    directory.configure(["m"])
    directory["m"].description = {"prefix_block_tokens": 16}
    sessions = SessionsAdvisor(directory)
    turn = turn_of(parsed, [], "")
    assert turn is not None
    seen = Observation("m", "cpu", "r", 100 * turns, 100, 0, 0.0, 0.1, 1.0, 1.0, "rapl")
    return {
        "turns": turns,
        "body_bytes": len(body),
        "turn_us": _time(lambda: turn_of(parsed, [], "")),
        "recall_us": _time(lambda: sessions.recall(turn, {"m": 100 * turns})),
        "remember_us": _time(lambda: sessions.remember(turn, seen)),
    }


def _time(call: Callable[[], object]) -> float:
    samples = []
    for _ in range(REPEATS):
        start = time.perf_counter_ns()
        call()
        samples.append((time.perf_counter_ns() - start) / 1000)
    return statistics.median(samples)


def converse(server: Server) -> list[dict[str, Any]]:
    """Means over conversations: by turn, seconds to the first token and tokens from the cache."""
    generator = random.Random(0)
    seen: dict[str, list[dict[str, Any]]] = {"first": [], "second": [], "second, not cached": []}
    with httpx.Client(base_url=server.url, timeout=120) as client:
        for _ in range(CONVERSATIONS):
            opening = {"role": "user", "content": f"Remember this: {_words(generator)}"}
            answer, first = _ask(client, [opening])
            follow_up = [answer, {"role": "user", "content": "Say it again, shorter."}]
            _, second = _ask(client, [opening, *follow_up])
            other = {"role": "user", "content": f"Remember this: {_words(generator)}"}
            _, fresh = _ask(client, [other, *follow_up])
            for row, name in zip((first, second, fresh), seen, strict=True):
                seen[name].append(row)
    return [
        {
            "turn": name,
            "input_tokens": statistics.mean(row["input_tokens"] for row in rows),
            "cached_input_tokens": statistics.mean(row["cached_input_tokens"] for row in rows),
            "expected_cached_tokens": statistics.mean(row["expected"] for row in rows),
            "stayed": sum(row["stayed"] for row in rows),
            "ttft_s": statistics.median(row["ttft_s"] for row in rows),
        }
        for name, rows in seen.items()
    ]


def _words(generator: random.Random) -> str:
    return " ".join(str(generator.randint(10, 99)) for _ in range(LONG_WORDS))


def _ask(client: httpx.Client, messages: list[Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The answer, and what the replica measured of it."""
    body = {"model": "auto", "messages": messages, "max_tokens": 16, "temperature": 0}
    response = client.post("/v1/chat/completions", json=body).raise_for_status()
    record = client.get(f"/v1/decisions/{response.headers['x-decision-id']}").json()
    session = record["session"]
    told = {"expected": session["cached_tokens"], "stayed": session["stayed"]}
    message = response.json()["choices"][0]["message"]
    return {name: message[name] for name in ("role", "content")}, record["observation"] | told


def _print_live(rows: list[dict[str, Any]]) -> None:
    names = f"{'turn':<20}{'prompt':>8}{'expected':>10}{'cached':>8}{'stayed':>8}"
    print(f"{names}{'to first token':>16}")
    for row in rows:
        print(
            f"{row['turn']:<20}{row['input_tokens']:>8.0f}{row['expected_cached_tokens']:>10.0f}"
            f"{row['cached_input_tokens']:>8.0f}{row['stayed']:>5} / {CONVERSATIONS}"
            f"{row['ttft_s'] * 1000:>13.0f} ms"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description="Cost and gain of remembering conversations.")
    parser.add_argument("--live", action="store_true", help="converse with the embedded models")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    args = parser.parse_args()
    if args.live:
        with embedded_models(Console(stderr=True)) as running:
            live = converse(running.server)
        print(json.dumps(live, indent=2)) if args.json else _print_live(live)
        return
    rows = [measure(turns) for turns in TURNS]
    if args.json:
        print(json.dumps(rows, indent=2))
        return
    print(f"{'turns':>6}{'body, bytes':>13}{'turn, us':>10}{'recall, us':>12}{'remember, us':>14}")
    for row in rows:
        print(
            f"{row['turns']:>6}{row['body_bytes']:>13}{row['turn_us']:>10.1f}"
            f"{row['recall_us']:>12.1f}{row['remember_us']:>14.1f}"
        )


if __name__ == "__main__":
    main()
