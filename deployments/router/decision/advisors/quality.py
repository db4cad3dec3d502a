"""Quality per prompt: how likely each model is to answer this very prompt right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

from deployments.router.decision.advisors.base import Advisor
from deployments.router.decision.query import Query
from deployments.router.models import ModelDirectory
from deployments.router.sync.exchange import Exchange
from deployments.router.sync.quality import QualitySource
from scheduler.extras import Extras
from scheduler.prompts.quality import EstimatedBy
from scheduler.sequential.posterior import AnswerModel
from scheduler.types import NO_EXTRAS, ClusterState, RoutingRequest


class QualityAdvisor(Advisor):
    """Estimates by the published quality model; without one the profiles' accuracies count."""

    name: ClassVar[str] = "quality"

    def __init__(self, directory: ModelDirectory) -> None:
        self._source = QualitySource()

    def extras(self) -> Extras:
        """How answers of the models agree, where the quality model knows."""
        model = self._source.current
        answers = model.answers if model else None
        return {AnswerModel: answers} if answers else NO_EXTRAS

    def advise(self, query: Query, request: RoutingRequest, state: ClusterState) -> RoutingRequest:
        """Adds the estimates."""
        model = self._source.current
        if model is None:
            return request
        report = EstimatedBy(model.version)
        return replace(
            request,
            quality=model.estimate(query.parsed.text, query.features),
            reports={**request.reports, report.name: report},
        )

    def shared(self) -> Sequence[Exchange[Any]]:
        """The published quality model."""
        return (self._source,)

    def faults(self) -> Sequence[str]:
        """A published model that cannot be used."""
        return (self._source.fault,) if self._source.fault else ()
