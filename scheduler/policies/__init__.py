"""The policies by the names that requests use."""

from __future__ import annotations

from scheduler.errors import UnknownPolicyError
from scheduler.policies.bandit import BanditPolicy
from scheduler.policies.base import Policy
from scheduler.policies.baselines import (
    LeastLoadedPolicy,
    RandomPolicy,
    RoundRobinPolicy,
    StaticPolicy,
)
from scheduler.policies.cascade import CascadePolicy
from scheduler.policies.constrained import ConstrainedPolicy
from scheduler.policies.sequential import SequentialPolicy
from scheduler.policies.utility import UtilityPolicy
from scheduler.policies.weighted import WeightedPolicy

_CLASSES: tuple[type[Policy], ...] = (
    WeightedPolicy,
    UtilityPolicy,
    ConstrainedPolicy,
    BanditPolicy,
    CascadePolicy,
    SequentialPolicy,
    StaticPolicy,
    RoundRobinPolicy,
    RandomPolicy,
    LeastLoadedPolicy,
)

POLICIES: dict[str, type[Policy]] = {policy.name: policy for policy in _CLASSES}


def get_policy(name: str) -> Policy:
    """The policy of a name.

    Raises:
        UnknownPolicyError: There is none of that name.
    """
    try:
        return POLICIES[name]()
    except KeyError:
        raise UnknownPolicyError(
            "routing.policy", f"unknown policy {name!r}, known: {', '.join(POLICIES)}"
        ) from None
