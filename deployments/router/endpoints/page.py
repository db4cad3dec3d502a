"""The page at `/`: static files of the package, the same for everybody.

They hold no secret, so they are served without an API key; what the page then asks of the API needs
one like everything else. Nothing is built, and the page loads nothing from elsewhere.
"""

from __future__ import annotations

import os

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

INDEX_PATH = "/"
FILES_PATH = "/page"

HEADERS = {
    "content-security-policy": "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "img-src 'self'",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
        )
    ),
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    # Asked for again every time, so that a page fits the router that it talks to.
    "cache-control": "no-cache",
}


def is_page(path: str) -> bool:
    """Whether a path is one of the page's own, which nobody needs a key for."""
    return path == INDEX_PATH or path.startswith(f"{FILES_PATH}/")


def page_routes() -> list[BaseRoute]:
    """The routes of the page and of the files that it loads."""
    files = _PageFiles(packages=[("deployments", "page")])

    async def index(request: Request) -> Response:
        return await files.get_response("index.html", request.scope)

    return [Route(INDEX_PATH, index), Mount(FILES_PATH, files)]


class _PageFiles(StaticFiles):
    """Starlette's static files, each with the headers above."""

    def file_response(
        self,
        full_path: str | os.PathLike[str],
        stat_result: os.stat_result,
        scope: Scope,
        status_code: int = 200,
    ) -> Response:
        """One file, or 304 where the browser has it already."""
        response = super().file_response(full_path, stat_result, scope, status_code)
        response.headers.update(HEADERS)
        return response
