"""Profiles of models without trials, from the model cards that their replicas describe."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

from scheduler.costs.priors.accelerators import AcceleratorTable
from scheduler.costs.priors.library import library_profile
from scheduler.costs.priors.model_card import ModelCard
from scheduler.costs.priors.origins import SHIPPED
from scheduler.costs.priors.prior import card_profile
from scheduler.costs.profiles import ModelProfile, ProfileSet
from scheduler.errors import ModelCardError, ProfileError

logger = logging.getLogger("ray.serve")

# What a replica reports whose device is none of the node's: a slice of a GPU.
UNKNOWN_DEVICE = "unknown"


@cache
def _table() -> AcceleratorTable:
    return AcceleratorTable.shipped()


def profile_of(
    model: str, description: Mapping[str, Any], library: ProfileSet | None = None
) -> ModelProfile | None:
    """The profile that a replica's description gives, `None` where it gives none.

    Args:
        model: Its id.
        description: As `ModelServer.describe` returns it; of an older replica without a card.
        library: Profiles that are better than a computed one, by source and accelerator.
    """
    card, device = description.get("model_card"), description.get("accelerator")
    if not device or device == UNKNOWN_DEVICE:
        return None
    devices = description.get("tensor_parallel", 1)
    source = description.get("model_source")
    if library is not None and source:
        entry = library_profile(library, source, device, devices)
        if entry is not None:
            return replace(entry, model=model, accelerator=device, origin=SHIPPED)
    if not card:
        return None
    try:
        return card_profile(
            model,
            ModelCard(**card),
            _table().find_whole(device),
            devices,
            device,
        )
    except (ModelCardError, ProfileError, TypeError) as error:
        logger.warning("%s: no prior from its model card: %s", model, error)
        return None
