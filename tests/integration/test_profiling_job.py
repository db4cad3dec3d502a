"""The profiling job, submitted as users do, and the swap of profiles under load."""

from __future__ import annotations

import threading
from dataclasses import replace
from functools import partial

import httpx
import pytest
from live_cluster import Cluster, prior

from profiling.trials.log import read_trials
from scheduler.costs.profiles import ProfileSet

pytestmark = pytest.mark.integration


def profiles_in_use(cluster: Cluster) -> ProfileSet:
    return ProfileSet.from_json(httpx.get(f"{cluster.url}/v1/profiles").text)


def is_in_use(cluster: Cluster, version: str) -> bool:
    profile = profiles_in_use(cluster).find("tiny-phi3")
    return profile is not None and profile.accuracy_source == version


def test_the_job_profiles_fits_and_publishes(cluster: Cluster) -> None:
    before = profiles_in_use(cluster)
    done = cluster.run(
        "ray", "job", "submit", "--working-dir", ".", "--",
        "python", "-m", "profiling", "run", "--quick", "--source", "integration test",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    after = profiles_in_use(cluster)
    assert after.version != before.version
    for model in ("tiny-phi3", "tiny-mistral"):
        profile = after.find(model, "cpu")
        assert profile is not None
        assert profile.source == "integration test"
        assert profile.runtime.predict(100, 10) > 0
        assert profile.energy.predict(100, 10) > 0
        # Not measured by this job: carried over.
        previous = before.find(model)
        assert previous is not None
        assert profile.accuracy == previous.accuracy
    trials, cleaning = read_trials(cluster.data_dir / "raw_profiles")
    assert not cleaning.reasons
    assert set(trials["model"]) == {"tiny-phi3", "tiny-mistral"}
    assert (trials["cached_input_tokens"] == 0).all()
    assert {1, 8} <= set(trials["concurrency"])
    assert cluster.get("/health")["models"]["tiny-phi3"]["profile"] == "measured"
    assert (cluster.data_dir / "model_regression_summary.csv").exists()


def test_profiles_are_swapped_under_load_without_a_failed_request(cluster: Cluster) -> None:
    stop = threading.Event()
    statuses: list[int] = []

    def load() -> None:
        with httpx.Client(timeout=60) as client:
            while not stop.is_set():
                body = {"model": "auto", "prompt": "Hello", "max_tokens": 4}
                statuses.append(client.post(f"{cluster.url}/v1/completions", json=body).status_code)

    workers = [threading.Thread(target=load) for _ in range(4)]
    for worker in workers:
        worker.start()
    try:
        for scale in (2.0, 3.0):
            version = publish(cluster, scale)
            cluster.wait_until(
                f"profiles {version} are in use",
                partial(is_in_use, cluster, version),
                10,
            )
            before = len(statuses)
            cluster.wait_until(
                "20 more requests are answered", lambda before=before: len(statuses) >= before + 20
            )
    finally:
        stop.set()
        for worker in workers:
            worker.join()
    assert set(statuses) == {200}


def publish(cluster: Cluster, scale: float) -> str:
    """Publish a set that can be told by its mark, and return the mark."""
    mark = f"swap {scale}"
    changed = ProfileSet(tuple(replace(p, accuracy_source=mark) for p in prior().profiles))
    path = cluster.folder / "swap.json"
    path.write_text(changed.to_json())
    done = cluster.run("python", "-m", "profiling", "publish", "--profiles", str(path), "--force")
    assert done.returncode == 0, done.stdout + done.stderr
    return mark
