"""Profiles of models without trials, from the model cards that their replicas describe."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import cache
from typing import Any

from scheduler.costs.accelerators import AcceleratorTable
from scheduler.costs.model_card import ModelCard
from scheduler.costs.prior import card_profile
from scheduler.errors import ModelCardError, ProfileError
from scheduler.profiles import ModelProfile

logger = logging.getLogger("ray.serve")

# What a replica reports whose device is none of the node's: a slice of a GPU.
UNKNOWN_DEVICE = "unknown"


@cache
def _table() -> AcceleratorTable:
    return AcceleratorTable.shipped()


def profile_of(model: str, description: Mapping[str, Any]) -> ModelProfile | None:
    """The profile that a replica's description gives, `None` where it gives none.

    Args:
        model: Its id.
        description: As `ModelServer.describe` returns it; of an older replica without a card.
    """
    card, device = description.get("model_card"), description.get("accelerator")
    if not card or not device or device == UNKNOWN_DEVICE:
        return None
    try:
        return card_profile(
            model,
            ModelCard(**card),
            _table().find(device),
            description.get("tensor_parallel", 1),
            device,
        )
    except (ModelCardError, ProfileError, TypeError) as error:
        logger.warning("%s: no prior from its model card: %s", model, error)
        return None
