"""The page's files as the router serves them, without a browser."""

from __future__ import annotations

import os
import re
from importlib.resources import files

import pytest
from fake_serve import Site

FOLDER = files("deployments") / "page"
NAMES = sorted(file.name for file in FOLDER.iterdir())


def test_the_page_comes_with_a_strict_policy(site: Site) -> None:
    page = site.request("GET", "/")
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert site.request("HEAD", "/").headers["content-security-policy"] == policy


@pytest.mark.parametrize("name", NAMES)
def test_every_file_is_served(site: Site, name: str) -> None:
    file = site.request("GET", f"/page/{name}")
    kinds = {"js": "text/javascript", "css": "text/css", "html": "text/html", "svg": "image/svg"}
    assert file.status_code == 200
    assert file.headers["content-type"].startswith(kinds[name.rsplit(".", 1)[1]])
    assert file.headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in file.headers["content-security-policy"]
    again = site.request("GET", f"/page/{name}", headers={"if-none-match": file.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize("name", NAMES)
def test_no_file_names_another_host(name: str) -> None:
    text = (FOLDER / name).read_text()
    named = set(re.findall(r"(?:https?:)?//[\w.-]+\.\w+[\w/]*", text))
    # The name of SVG's namespace is fetched by nobody.
    assert named <= {"http://www.w3.org/2000/svg"}


def test_what_is_not_there(site: Site) -> None:
    for path in ("/page/none.js", "/page/", "/page/%2e%2e/router.py", "/page/../auth.py"):
        missing = site.request("GET", path)
        assert (path, missing.status_code) == (path, 404)
        assert missing.json()["error"]["type"] == "invalid_request_error"
    assert site.request("POST", "/page/app.js").status_code == 405
    assert site.request("POST", "/").status_code == 405


@pytest.mark.parametrize(("host", "keys"), [("127.0.0.1", "one"), ("0.0.0.0", "")])
def test_nobody_needs_a_key_for_the_page(
    site: Site, monkeypatch: pytest.MonkeyPatch, host: str, keys: str
) -> None:
    monkeypatch.setattr("deployments.router.server.serve_host", lambda: host)
    monkeypatch.setitem(os.environ, "DYNAMIC_LLM_SCHEDULER_API_KEYS", keys)
    site.app = site.router.__serve_build_asgi_app__()
    for path in ("/", "/page/app.js", "/health"):
        assert site.request("GET", path).status_code == 200
    for path in ("/v1/live", "/v1/models", "/page", "/pages", "//v1/models", "/page/../v1/models"):
        assert (path, site.request("GET", path).status_code in (401, 403, 404)) == (path, True)
    assert site.request("GET", "/v1/live").json()["error"]["code"] in (
        "invalid_api_key",
        "no_api_keys",
    )
