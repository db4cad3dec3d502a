"""What clients may call the models, and which web pages may call the API."""

from __future__ import annotations

import re
from collections.abc import Iterable

from pydantic import Field, field_validator

from cluster.naming import AUTO
from deployments.config.base import Strict

_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#@\s]+")


class ClientsConfig(Strict):
    """The part of the router's `user_config` that applications need to work unchanged."""

    aliases: dict[str, str] = Field(
        default_factory=dict,
        description="Names that clients may ask for besides the models' own, and what each stands "
        "for: `auto` or a model.",
    )
    default_model: str = Field(
        default=AUTO,
        description="What a request without `model` asks for: `auto`, a model or an alias.",
    )
    cors_origins: tuple[str, ...] = Field(
        default=(),
        description="Origins of web pages that may call the API, such as "
        "`https://app.example.com`; `*` for all.",
    )

    @field_validator("cors_origins")
    @classmethod
    def _are_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            if origin != "*" and not _ORIGIN.fullmatch(origin):
                raise ValueError(
                    f"{origin!r} is no origin: a scheme and a host, with a port where it is not "
                    "the usual one, and no path, such as 'https://app.example.com'"
                )
        return origins

    def check_names(self, models: Iterable[str]) -> None:
        """Check that every name leads to a model.

        Args:
            models: Ids of the configured ones.

        Raises:
            ValueError: An alias, or `default_model`, leads nowhere or hides a model.
        """
        targets = {AUTO, *models}
        known = ", ".join(sorted(targets))
        for alias, target in self.aliases.items():
            if not alias or alias in targets:
                reason = "is a model's own name" if alias else "must not be empty"
                raise ValueError(f"aliases: {alias!r} {reason}")
            if target not in targets:
                raise ValueError(
                    f"aliases: {alias!r} stands for {target!r}, which is no model, known: {known}"
                )
        if self.default_model not in targets and self.default_model not in self.aliases:
            raise ValueError(
                f"default_model {self.default_model!r} is no model and no alias, known: {known}"
            )

    def meanings(self) -> dict[str, str]:
        """What each alias stands for; the empty name is that of a request without `model`."""
        default = self.aliases.get(self.default_model, self.default_model)
        return {**self.aliases, "": default}
