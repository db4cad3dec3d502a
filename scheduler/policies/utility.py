"""Weighted costs against fixed yardsticks, so that magnitudes count."""

from __future__ import annotations

import math
from typing import ClassVar

from scheduler.choice.comparison import Comparison
from scheduler.errors import InvalidRequestError
from scheduler.policies.base import Policy
from scheduler.preferences import Metric
from scheduler.types import ClusterState, RoutingRequest


class UtilityPolicy(Policy):
    """Sum of weight x `(cost - mean) / std`, with the moments that the profile set stores.

    A score does not depend on the other candidates. A metric that did not vary in the fit has no
    yardstick and adds nothing.
    """

    name: ClassVar[str] = "utility"

    def scores(
        self, request: RoutingRequest, state: ClusterState, comparison: Comparison
    ) -> list[float]:
        """One sum per candidate.

        Raises:
            InvalidRequestError: The profiles in use store no reference moments.
        """
        if state.reference is None:
            raise InvalidRequestError(
                "routing.policy",
                f"{self.name!r} needs reference means and deviations, which profile set "
                f"{state.profile_version!r} does not have",
            )
        weights = request.weights.normalized()
        terms = []
        for metric in Metric:
            mean, std = state.reference[metric].mean, state.reference[metric].std
            if std > 0:
                weight = weights[metric]
                terms.append([weight * (cost - mean) / std for cost in comparison.costs[metric]])
        if not terms:
            return [0.0] * len(comparison.contenders)
        return [math.fsum(candidate) for candidate in zip(*terms, strict=True)]
