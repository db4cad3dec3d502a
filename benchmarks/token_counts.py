"""How long the router takes to count the input tokens of one request for several models.

    python benchmarks/token_counts.py [--json]

One process. The models share the tokenizer of the embedded models (49,000 tokens, 1.5 MB) and its
chat template, as `make serve` has them. From the parsed request to a count for every model: new,
where every conversation is seen for the first time, and known, where it was counted before.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import string
import time
from pathlib import Path
from typing import Any

import orjson
import psutil
from tokenizers import Tokenizer

from deployments.demo_models.build_once import build_once
from deployments.demo_models.catalog import cache_folder, packaged_gguf
from deployments.links.tokenizer_bundle import ChatFormat, TokenizerBundle
from deployments.router.tokens.counting import TokenCounter, TokenizerState
from deployments.router.tokens.model_tokenizer import ModelTokenizer
from deployments.router.tokens.prompts import Prompt
from deployments.router.wire.openai import parse_request

MODELS = ("smollm2-135m", "smollm2-135m-int8", "smollm2-135m-lite")
SIZES = (300, 2000, 20_000, 190_000, 1_000_000)
EXACT_BYTES = 200_000
REPEATS = {300: 1000, 2000: 300, 20_000: 100, 190_000: 20, 1_000_000: 20}
GOAL_MS = {300: 0.3}


def bundle() -> TokenizerBundle:
    folder = cache_folder() / "benchmarks" / "tokenizer"
    build_once(folder, _convert)
    encoder = Tokenizer.from_file(str(folder / "tokenizer.json")).to_str()
    chat = ChatFormat((folder / "chat_template.jinja").read_text(), parts=False)
    return TokenizerBundle(encoder, chat=chat, chat_with_tools=chat)


def _convert(folder: Path) -> None:
    # Needs torch, and only the first time.
    from deployments.demo_models.checkpoints import convert_tokenizer  # noqa: PLC0415

    convert_tokenizer(packaged_gguf(), folder)


def conversation(rng: random.Random, size: int) -> Prompt:
    """One message of made-up words, which take longer than English does."""
    words: list[str] = []
    length = 0
    while length < size:
        words.append("".join(rng.choices(string.ascii_lowercase, k=rng.randrange(2, 9))))
        length += len(words[-1]) + 1
    messages = [{"role": "user", "content": " ".join(words)[:size]}]
    return parse_request(orjson.dumps({"model": "auto", "messages": messages}), "chat").prompt


async def measure(counter: TokenCounter, size: int) -> dict[str, Any]:
    rng = random.Random(size)
    prompts = [conversation(rng, size) for _ in range(REPEATS[size])]
    row: dict[str, Any] = {"bytes": size, "goal_ms": GOAL_MS.get(size)}
    for name in ("new", "known"):
        samples = []
        for prompt in prompts:
            start = time.perf_counter_ns()
            counts = await counter.count(prompt, MODELS, EXACT_BYTES)
            samples.append((time.perf_counter_ns() - start) / 1e6)
        row[f"{name}_median_ms"] = statistics.median(samples)
        row[f"{name}_p99_ms"] = statistics.quantiles(samples, n=100)[98]
        row["exact"] = all(count.exact for count in counts.values())
    return row


def load() -> tuple[TokenCounter, dict[str, float]]:
    """A counter with the tokenizer, and what loading it took."""
    given = bundle()
    process = psutil.Process()
    before, start = process.memory_info().rss, time.perf_counter()
    tokenizer = ModelTokenizer(given)
    took = {
        "bundle_mb": len(given.encoder) / 1e6,
        "load_s": time.perf_counter() - start,
        "memory_mb": (process.memory_info().rss - before) / 1e6,
    }
    counter = TokenCounter()
    counter.add("digest", tokenizer)
    counter.assign({model: TokenizerState("digest", None) for model in MODELS})
    return counter, took


def main() -> None:
    parser = argparse.ArgumentParser(description="Latency of counting input tokens for 3 models.")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    as_json = parser.parse_args().json
    counter, loading = load()
    rows = [asyncio.run(measure(counter, size)) for size in SIZES]
    if as_json:
        print(json.dumps({"loading": loading, "counting": rows}, indent=2))
        return
    print(
        f"tokenizer: {loading['bundle_mb']:.1f} MB, loaded once in {loading['load_s']:.2f} s, "
        f"{loading['memory_mb']:.0f} MB of memory\n"
    )
    print(f"{'':>10}{'new, ms':>16}{'known, ms':>16}{'goal, ms':>10}")
    print(f"{'bytes':>10}{'median':>8}{'p99':>8}{'median':>8}{'p99':>8}{'new':>10}  exact")
    for row in rows:
        figures = (row[f"{n}_{q}_ms"] for n in ("new", "known") for q in ("median", "p99"))
        cells = "".join(f"{figure:>8.3f}" for figure in figures)
        goal = "-" if row["goal_ms"] is None else f"{row['goal_ms']:g}"
        print(f"{row['bytes']:>10,}{cells}{goal:>10}  {'yes' if row['exact'] else 'no'}")


if __name__ == "__main__":
    main()
