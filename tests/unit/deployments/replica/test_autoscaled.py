"""What Serve's autoscaler makes of the counts that replicas hand it: Ray's own state decides."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest
from ray.serve._private.autoscaling_state import DeploymentAutoscalingState
from ray.serve._private.common import (
    DeploymentHandleSource,
    DeploymentID,
    HandleMetricReport,
    ReplicaID,
    ReplicaMetricReport,
    TimeStampedValue,
)
from ray.serve._private.config import DeploymentConfig
from ray.serve.config import AutoscalingConfig

from deployments.replica.deployment import ModelReplica

DEPLOYMENT = DeploymentID("ModelServer:m", "m")
REPLICAS = [ReplicaID(name, DEPLOYMENT) for name in ("one", "two")]


def stats(ongoing: int) -> dict[str, float]:
    """What a replica with so many requests, of any way here, hands over."""
    replica: Any = SimpleNamespace(_server=SimpleNamespace(ongoing=ongoing))
    return ModelReplica.record_autoscaling_stats(replica)


class Autoscaler:
    """Ray's state of one deployment, four requests for each replica and no delays."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._state = DeploymentAutoscalingState(DEPLOYMENT)
        config = AutoscalingConfig(
            min_replicas=0,
            max_replicas=5,
            target_ongoing_requests=4,
            upscale_delay_s=0,
            downscale_delay_s=0,
        )
        info = SimpleNamespace(
            deployment_config=DeploymentConfig(autoscaling_config=config),
            target_capacity=None,
            target_capacity_direction=None,
            config_changed=lambda _: False,
        )
        self._state.register(info, target)
        self._state.update_running_replica_ids(REPLICAS[:target])

    def replicas_say(self, *ongoing: int) -> None:
        now = time.time()
        for replica, count in zip(REPLICAS, ongoing, strict=False):
            series = {
                name: [TimeStampedValue(now - 1, value), TimeStampedValue(now, value)]
                for name, value in stats(count).items()
            }
            report = ReplicaMetricReport(replica_id=replica, timestamp=now, metrics=series)
            self._state.record_request_metrics_for_replica(report)

    def a_handle_says(self, *, queued: int, running: int = 0) -> None:
        now = time.time()

        def series(value: int) -> list[TimeStampedValue]:
            return [TimeStampedValue(now - 1, value), TimeStampedValue(now, value)]

        report = HandleMetricReport(
            deployment_id=DEPLOYMENT,
            handle_id="h",
            actor_id="a",
            handle_source=DeploymentHandleSource.REPLICA,
            queued_requests=series(queued),
            metrics={
                "running_requests": {
                    replica.to_full_id_str(): series(running) for replica in REPLICAS[:1]
                }
            },
            timestamp=now,
        )
        self._state.record_request_metrics_for_handle(report)

    @property
    def wanted(self) -> int:
        number: int = self._state.get_decision_num_replicas(self._target)
        return number


@pytest.mark.parametrize(
    ("ongoing", "wanted"), [((0,), 0), ((3,), 1), ((4,), 1), ((5,), 2), ((11,), 3), ((99,), 5)]
)
def test_requests_over_links_count(ongoing: tuple[int], wanted: int) -> None:
    autoscaler = Autoscaler(target=1)
    autoscaler.replicas_say(*ongoing)
    # All of them came over links: the handle knows of nothing.
    autoscaler.a_handle_says(queued=0)
    assert autoscaler.wanted == wanted


def test_requests_through_a_handle_count_once() -> None:
    autoscaler = Autoscaler(target=1)
    autoscaler.replicas_say(6)
    autoscaler.a_handle_says(queued=0, running=6)
    assert autoscaler.wanted == 2


def test_replicas_that_have_nothing_to_do_are_given_up() -> None:
    autoscaler = Autoscaler(target=2)
    autoscaler.replicas_say(2, 1)
    assert autoscaler.wanted == 1


def test_what_waits_at_a_handle_brings_a_model_back_from_zero() -> None:
    autoscaler = Autoscaler(target=0)
    autoscaler.a_handle_says(queued=0)
    assert autoscaler.wanted == 0
    autoscaler.a_handle_says(queued=1)
    assert autoscaler.wanted == 1
