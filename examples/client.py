"""A client of a running router: asks with different weights, and shows what each answer took.

    python examples/client.py [--address http://127.0.0.1:8000] [PROMPT]

`make serve` starts a router with three small models. Any OpenAI client works; here it is the
official one.
"""

from __future__ import annotations

import argparse
import os
import sys

from openai import APIConnectionError, OpenAI

WEIGHTS = ({"accuracy": 1.0}, {"energy": 1.0}, {"accuracy": 0.6, "energy": 0.2, "time": 0.2})


def main() -> int:
    parser = argparse.ArgumentParser(description="Ask a running router with different weights.")
    parser.add_argument("prompt", nargs="?", default="What is the capital of France?")
    parser.add_argument("--address", default="http://127.0.0.1:8000", help="of the router")
    options = parser.parse_args()
    # A router without API keys accepts any.
    key = os.environ.get("OPENAI_API_KEY", "none")
    client = OpenAI(base_url=f"{options.address}/v1", api_key=key)
    for weights in WEIGHTS:
        try:
            answer = client.chat.completions.create(
                model="auto",
                messages=[{"role": "user", "content": options.prompt}],
                max_tokens=48,
                extra_body={"routing": {"weights": weights}},
            )
        except APIConnectionError as error:
            print(f"no router answers at {options.address}: {error}", file=sys.stderr)
            return 1
        routing = (answer.model_extra or {})["routing"]
        predicted, actual = routing["predicted"], routing["actual"]
        print(f"{weights}: {answer.model}")
        for name, unit in (("runtime_s", "s"), ("energy_joules", "J")):
            before = f"{predicted[name]:.3g} {unit}" if predicted else "nothing"
            after = "unknown" if actual[name] is None else f"{actual[name]:.3g} {unit}"
            print(f"  {name}: predicted {before}, actual {after}")
        print(f"  {answer.choices[0].message.content}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
