"""The studio: the page at `/` and the files it loads, built from `api/studio` and committed (`make studio`)."""

from __future__ import annotations

import gzip
from functools import lru_cache
from pathlib import Path
from typing import Annotated, NamedTuple

from fastapi import APIRouter, Header, Response

from api.server.query import KnownParameters
from api.server.responses import cache_headers, etag, matches
from api.server.security_headers import PAGE_POLICY
from core.errors import NotFound

router = APIRouter(include_in_schema=False, dependencies=[KnownParameters])

_BUILT = Path(__file__).parents[1] / "pages" / "studio"
_KINDS = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
    ".woff2": "font/woff2",
}
_COMPRESSED = frozenset({".html", ".css", ".js", ".svg"})
_PERMISSIONS = "camera=(self), microphone=(), geolocation=()"
_FOREVER = "public, max-age=31536000, immutable"
"""The names of these files have a hash of their content in them."""


class _File(NamedTuple):
    kind: str
    plain: bytes
    compressed: bytes | None
    tag: str


@lru_cache(maxsize=1)
def _files() -> dict[str, _File]:
    """What was built, by its name."""
    return {path.name: _read(path) for path in (_BUILT / "index.html", *(_BUILT / "assets").iterdir())}


def _read(path: Path) -> _File:
    data = path.read_bytes()
    packed = gzip.compress(data, mtime=0) if path.suffix in _COMPRESSED else None
    return _File(_KINDS[path.suffix], data, packed, etag(data))


@router.get("/")
def read_studio(
    if_none_match: Annotated[str | None, Header()] = None, accept_encoding: Annotated[str, Header()] = ""
) -> Response:
    """The page."""
    file = _files()["index.html"]
    headers = {**cache_headers(file.tag), "Content-Security-Policy": PAGE_POLICY, "Permissions-Policy": _PERMISSIONS}
    if matches(if_none_match, file.tag):
        return Response(status_code=304, headers=headers)
    return _sent(file, headers, accept_encoding)


@router.get("/assets/{name}")
def read_asset(name: str, accept_encoding: Annotated[str, Header()] = "") -> Response:
    """A script, a style or a font of the page."""
    file = _files().get(name)
    if file is None or name == "index.html":
        raise NotFound(f"GET /assets/{name[:80]} is not part of this service.")
    return _sent(file, {"Cache-Control": _FOREVER}, accept_encoding)


def _sent(file: _File, headers: dict[str, str], accept_encoding: str) -> Response:
    headers = {**headers, "Vary": "Accept-Encoding"}
    if file.compressed is not None and "gzip" in accept_encoding.lower():
        return Response(file.compressed, headers={**headers, "Content-Encoding": "gzip"}, media_type=file.kind)
    return Response(file.plain, headers=headers, media_type=file.kind)
