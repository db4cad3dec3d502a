"""Which replica of a model takes a call: the named one, or the less busy of two.

A plain handle can neither name nor exclude a replica. Profiling names one (`target`); failover and
a running profile exclude some (`avoid`), as keyword arguments of the call.
"""

from __future__ import annotations

import random

from ray.serve.request_router import PendingRequest, RequestRouter, RunningReplica


class TargetedRequestRouter(RequestRouter):  # type: ignore[misc]
    """Power of two choices over the replicas that the call allows.

    `target` wins over everything; where it does not run (any more), every replica is a candidate
    and the caller finds out from the answer which one it was. Where `avoid` leaves none, all are
    candidates: an answer from an avoided replica beats none.
    """

    async def choose_replicas(
        self,
        candidate_replicas: list[RunningReplica],
        pending_request: PendingRequest | None = None,
    ) -> list[list[RunningReplica]]:
        """The replicas to try, one rank."""
        kwargs = pending_request.kwargs if pending_request else {}
        target = kwargs.get("target")
        avoid = kwargs.get("avoid") or ()
        if target is not None:
            for replica in candidate_replicas:
                if replica.replica_id.unique_id == target:
                    return [[replica]]
        allowed = [r for r in candidate_replicas if r.replica_id.unique_id not in avoid]
        pool = allowed or candidate_replicas
        return [random.sample(pool, min(2, len(pool)))]
