"""The exception that becomes an OpenAI error object."""

from __future__ import annotations

from deployments.router.wire.error_codes import default_code, error_body


class ApiError(Exception):
    """An answer that is an OpenAI error object.

    Attributes:
        status: HTTP status.
        param: Offending field, dotted, `None` where no field is to blame.
        code: One of `ErrorCode`; by the status unless given.
        retry_after_s: Value of the Retry-After header, `None` for none.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.param = param
        self.code = code or str(default_code(status))
        self.retry_after_s = retry_after_s

    def headers(self) -> dict[str, str]:
        """HTTP headers that belong to the status, names in lower case."""
        headers = {}
        if self.retry_after_s is not None:
            headers["retry-after"] = str(self.retry_after_s)
        if self.status == 401:
            headers["www-authenticate"] = 'Bearer realm="dynamic-llm-scheduler"'
        if self.status == 415:
            headers["accept-encoding"] = "gzip, zstd"
        return headers

    def body(self) -> bytes:
        """The error object as JSON."""
        return error_body(self.status, str(self), param=self.param, code=self.code)
