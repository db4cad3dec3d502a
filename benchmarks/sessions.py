"""What remembering conversations costs the router: for each request, and for each answer.

    python benchmarks/sessions.py [--json]

One process, one core. `turn` hashes the messages of a chat request, `recall` looks the conversation
up for the decision, `remember` takes in where it was answered; together they are what a request
pays. The conversations have turns of 400 characters.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

from deployments.directory import ModelDirectory
from deployments.openai_api import parse_request
from deployments.sessions import Sessions, turn_of
from scheduler.types import Observation

TURNS = (1, 5, 20, 100)
CHARACTERS = 400
REPEATS = 2000


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
    sessions = Sessions(directory)
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


def main() -> None:
    parser = argparse.ArgumentParser(description="Cost of remembering conversations.")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    rows = [measure(turns) for turns in TURNS]
    if parser.parse_args().json:
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
