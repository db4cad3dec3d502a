"""What a replica says of the work that its model is: the model card, from what the engine loaded.

Routers compute costs from it while there is no profile, see
`deployments.router.sync.card_profiles`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from scheduler.costs.priors.model_card import ModelCard
from scheduler.errors import ModelCardError

logger = logging.getLogger("ray.serve")


def describe_card(
    config: Mapping[str, Any], cache_dtype: str, devices: int, source: str, dtype: str = ""
) -> dict[str, Any]:
    """The fields for `ModelServer.describe`.

    Args:
        config: `config.json` as the engine has read it.
        cache_dtype: Of the engine's cache; `auto` for the model's own.
        devices: Tensor parallel degree.
        source: Repository or folder that the weights come from.
        dtype: Of the engine's numbers; empty for the file's own.

    Returns:
        `model_card` is `None` where there is none, and then `model_card_fault` says why.
    """
    try:
        card = ModelCard.from_config(config, 8 if "8" in cache_dtype else None, dtype)
    except ModelCardError as error:
        logger.warning("no prior from the model card: %s", error)
        return no_card(str(error), devices, source)
    return no_card("", devices, source) | {"model_card": asdict(card)}


def no_card(fault: str, devices: int, source: str) -> dict[str, Any]:
    """The same fields of a model without a card, and why it has none."""
    return {
        "model_card": None,
        "model_card_fault": fault,
        "tensor_parallel": devices,
        "model_source": source,
    }
