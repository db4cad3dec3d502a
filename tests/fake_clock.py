"""A clock that stands until a test moves it."""


class FakeClock:
    """Counts from where it is set; `now` in seconds may be moved at will."""

    def __init__(self, now: float = 100.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now
