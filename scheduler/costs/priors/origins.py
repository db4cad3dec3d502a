"""Where the costs of a profile come from, from the best to the least known."""

from __future__ import annotations

MEASURED = "measured"
"""Fitted to trials on this cluster."""
CALIBRATED = "calibrated"
"""A prior that a few trials on this cluster have scaled or corrected."""
SHIPPED = "shipped"
"""From a file: of this package, of its library, or of the operator."""
MODEL_CARD = "model card"
"""Computed from the model card and a data sheet; no trial."""
ORIGINS = (MEASURED, CALIBRATED, SHIPPED, MODEL_CARD)
# With at most as many trials a fit is still much of its prior.
FEW_TRIALS = 12


def origin_of_fit(trials: int) -> str:
    """What a fit with a prior is called after so many trials."""
    return MEASURED if trials > FEW_TRIALS else CALIBRATED
