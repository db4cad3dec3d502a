"""A router over real HTTP whose one model is scripted: what clients make of the wire formats.

    python tests/clients/scripted.py            # prints its address, and serves until Ctrl-C
    python tests/clients/run.py --url ADDRESS

Where a tool is required the model calls it, else it says "Hello there". Nothing is generated: that
takes the live service, which `run.py` starts by itself.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

TESTS = Path(__file__).parents[1]
sys.path.insert(0, str(TESTS / "unit" / "helpers"))

import orjson
import pytest
import ray.serve
from chat_stream import ID, call, streamed, whole
from fake_serve import Model, Response, ServeDouble, StoreDouble, profile
from served_router import ServedRouter

from deployments.config.app import RouterArgs
from scheduler.costs.profiles import ProfileSet

MODEL = "tiny-mistral"
ARGUMENTS = '{"city": "Oslo", "sky": "rain"}'


class Scripted(Model):
    """Answers by what is asked."""

    def call(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Response:
        """As the double of a handle does."""
        if method in ("answer", "stream") and args[0].endpoint == "chat":
            self._prepare(args[0].request_id, orjson.loads(args[0].body))
        return super().call(method, args, kwargs)

    def _prepare(self, request_id: str, body: dict[str, Any]) -> None:
        chosen = body.get("tool_choice")
        if isinstance(chosen, dict) or chosen == "required":
            named = chosen if isinstance(chosen, dict) else body["tools"][0]
            name = named["function"]["name"]
            delta = call(0, name=name, arguments=ARGUMENTS)
            delta["tool_calls"][0]["id"] = f"call-{request_id[:8]}"
            self.reply, self.frames = whole(self.name, delta), streamed(self.name, delta)
        else:
            parts = ({"content": "Hello"}, {"content": " there"})
            self.reply = whole(self.name, {"content": "Hello there"})
            self.frames = streamed(self.name, *parts)
        known, given = ID.encode(), f"chatcmpl-{request_id}".encode()
        status, data, seen = self.reply
        self.reply = status, data.replace(known, given), seen
        self.frames = [(data.replace(known, given), ids, flag) for data, ids, flag in self.frames]


def main() -> None:
    """Serve until Ctrl-C."""
    double = ServeDouble(Scripted(MODEL, max_model_len=100_000))
    with TemporaryDirectory(prefix="scripted-") as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(ray.serve, "status", double.status)
        patch.setattr(ray.serve, "get_deployment_handle", double.get_deployment_handle)
        patch.setattr("deployments.router.server.serve_host", lambda: "127.0.0.1")
        store = StoreDouble(Path(folder) / "data")
        store.state.publish(ProfileSet((profile(MODEL, 1.0, 20.0, 0.6),)).to_json())
        patch.setattr("deployments.router.sync.profiles.connect_store", lambda _: store)
        router = ServedRouter(
            RouterArgs(data_dir=folder, record_content=True, request_timeout_s=60),
            models=[{"id": MODEL}],
            aliases={"gpt-4o": "auto"},
        )
        print(router.url, flush=True)
        try:
            while True:
                time.sleep(1)
        except KeyboardInterrupt:
            router.close()
            store.state.close()


if __name__ == "__main__":
    main()
