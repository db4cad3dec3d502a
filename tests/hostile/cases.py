"""What a case is: what is sent, and which answers to it are right.

The cases themselves are in `corpus`. A case is written down once and sent in several forms: for
each model by its name and for `auto`, streamed and whole, on each of the three routes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hostile.wire import Answer, exchange, request

CHAT, COMPLETIONS, ROUTE = "/v1/chat/completions", "/v1/completions", "/v1/route"
PATIENCE_S = 45.0
"""The suite waits so long for an answer, to tell how late it is; what is right is less."""
REJECTED = frozenset({400, 413, 422})
"""The client's fault, and it has to be said."""
LENIENT = REJECTED | {200}
"""An answer is fine too: the field does no harm, or a server may ignore it."""
TOO_MANY = frozenset({429})
PROMPT = "Say hi."
MAX_TOKENS = 8


@dataclass(frozen=True, slots=True)
class Right:
    """Which answers are right.

    Attributes:
        statuses: Allowed ones.
        within_s: Until an error has to be there.
        answered_within_s: Until an answer with status 200 has to be whole.
        by_proxy: HAProxy may answer, which has no OpenAI error objects.
        may_close: The server may close the connection without an answer.
        echo: Must not come back, in no header and no body, as it was sent.
    """

    statuses: frozenset[int] = REJECTED
    within_s: float = 8.0
    answered_within_s: float = 30.0
    by_proxy: bool = False
    may_close: bool = False
    echo: bytes | None = None


@dataclass(frozen=True, slots=True)
class Variant:
    """In which form a case is sent."""

    path: str
    model: str
    stream: bool

    def __str__(self) -> str:
        return f"{self.path} {self.model}{' stream' if self.stream else ''}"

    @property
    def is_chat(self) -> bool:
        return self.path == CHAT


@dataclass(frozen=True, slots=True)
class Target:
    """The service.

    Attributes:
        address: Host and port.
        models: By their names.
        auto: Name that lets the service choose, `None` where it has none.
        routes: It has `/v1/route`.
        key: API key of the ordinary clients, `None` where the service wants none.
        bad_key: Of the client that sends the corpus.
    """

    address: tuple[str, int]
    models: tuple[str, ...]
    auto: str | None = "auto"
    routes: bool = True
    key: str | None = None
    bad_key: str | None = None

    @property
    def url(self) -> str:
        return f"http://{self.address[0]}:{self.address[1]}"

    @property
    def any_model(self) -> str:
        """Where the case does not say which."""
        return self.auto or self.models[0]


Act = Callable[[Target, Variant], Coroutine[Any, Any, Sequence[Answer]]]


@dataclass(frozen=True, slots=True)
class Case:
    """One bad thing.

    Attributes:
        name: `family/what`.
        act: Does it and returns what came back.
        right: Which answers are right.
        paths: Routes that it can be sent to; the first one where it is sent once.
        once: It is not sent in several forms.
        thorough: In the long form it is sent in every form.
        short: A part of the short form.
        fills_queues: Other clients may get 429 meanwhile, as with any load of so many requests.
        settles: What it does may show only after its answers.
        needs_router: Not for other ingresses.
    """

    name: str
    act: Act
    right: Right = field(default_factory=Right)
    paths: tuple[str, ...] = (CHAT, COMPLETIONS)
    once: bool = False
    thorough: bool = False
    short: bool = False
    fills_queues: bool = False
    settles: bool = False
    needs_router: bool = False

    @property
    def family(self) -> str:
        return self.name.partition("/")[0]

    def variants(self, target: Target, number: int, seed: int) -> list[Variant]:
        """Forms to send it in, spread over all there are.

        Args:
            target: Where to.
            number: How many at most, unless the case is sent once.
            seed: Which ones; cases in a row begin at different ones.
        """
        if self.once:
            return [Variant(self.paths[0], target.any_model, False)]
        models = [*([target.auto] if target.auto else []), *target.models]
        forms = [Variant(p, m, s) for s in (False, True) for p in self.paths for m in models]
        if target.routes:
            forms += [Variant(ROUTE, target.any_model, False)]
        if number >= len(forms):
            return forms
        if self.thorough and number == 1:
            # Where the service may give it to one model after another: that does the most harm.
            forms = [f for f in forms if f.model == target.any_model and f.path != ROUTE]
        # A step that has no common factor with most lengths visits all of them in the end.
        return [forms[(seed * 7 + i * 5) % len(forms)] for i in range(number)]


@dataclass(frozen=True, slots=True)
class RawJson:
    """A part of a body that `json.dumps` cannot write, or would write otherwise."""

    text: str


class _Absent:
    """The field is left out."""


ABSENT = _Absent()
Fields = Mapping[str, Any] | Callable[[], Mapping[str, Any]]
"""Of a body; a function where it is big."""


def body_of(variant: Variant, fields: Fields, *, chat_form: bool | None = None) -> bytes:
    """A body with the fields of a case in the place of an ordinary one's."""
    given = fields() if callable(fields) else fields
    chat = variant.is_chat if chat_form is None else chat_form
    asked: dict[str, Any] = {"messages": [{"role": "user", "content": PROMPT}]}
    body = {
        "model": variant.model,
        "max_tokens": MAX_TOKENS,
        "stream": variant.stream,
        **(asked if chat else {"prompt": PROMPT}),
        **given,
    }
    return encode({name: value for name, value in body.items() if value is not ABSENT})


def encode(value: Any) -> bytes:
    """JSON as Python writes it: NaN, big integers and lone surrogates included."""
    raw: list[str] = []

    def placeholder(part: Any) -> str:
        if not isinstance(part, RawJson):
            raise TypeError(f"no JSON: {part!r}")
        raw.append(part.text)
        return f"@raw {len(raw) - 1}@"

    text = json.dumps(value, default=placeholder)
    for number, part in enumerate(raw):
        text = text.replace(f'"@raw {number}@"', part)
    return text.encode()


def post(fields: Fields, paths: tuple[str, ...]) -> Act:
    """One request with these fields."""

    async def act(target: Target, variant: Variant) -> Sequence[Answer]:
        chat = variant.is_chat if variant.path != ROUTE else CHAT in paths
        body = body_of(variant, fields, chat_form=chat)
        return [await send(target, variant, body)]

    return act


async def send(
    target: Target, variant: Variant, body: bytes, headers: Sequence[tuple[bytes, bytes]] = ()
) -> Answer:
    """One whole request, read to its end."""
    answer = Answer(f"POST {variant}", streamed=variant.stream)
    whole = request("POST", variant.path, body, headers)
    return await exchange(target.address, [whole], answer, timeout_s=PATIENCE_S)


def table(
    family: str,
    rows: Mapping[str, Fields],
    right: Right,
    *,
    paths: tuple[str, ...] = (CHAT, COMPLETIONS),
    thorough: bool = False,
    short: Sequence[str] = (),
) -> list[Case]:
    """Cases that are sent as fields of a body."""
    if unknown := set(short) - set(rows):
        raise ValueError(f"{family}: short names no row: {sorted(unknown)}")
    return [
        Case(
            f"{family}/{name}",
            post(fields, paths),
            right,
            paths,
            thorough=thorough,
            short=name in short,
        )
        for name, fields in rows.items()
    ]
