"""ETags and 304 answers: what has not changed is not sent again."""

from __future__ import annotations

import hashlib
from typing import Any

from starlette.responses import Response

NOT_MODIFIED: dict[int | str, dict[str, Any]] = {304: {"description": "Not changed since the ETag in If-None-Match."}}


def etag(body: bytes) -> str:
    """The ETag of a body: a hash of what would be sent."""
    return f'"{hashlib.blake2b(body, digest_size=12).hexdigest()}"'


def matches(if_none_match: str | None, tag: str) -> bool:
    """Whether an If-None-Match header names this ETag."""
    candidates = [part.strip().removeprefix("W/") for part in (if_none_match or "").split(",")]
    return tag in candidates or "*" in candidates


def cache_headers(tag: str) -> dict[str, str]:
    """The headers of an answer that callers may keep under this ETag, and must revalidate each time."""
    return {"ETag": tag, "Cache-Control": "private, no-cache"}


def cacheable(response: Response, if_none_match: str | None) -> Response:
    """The response with its ETag, or an empty 304 when the caller has it."""
    tag = etag(bytes(response.body))
    headers = cache_headers(tag)
    if not matches(if_none_match, tag):
        response.headers.update(headers)
        return response
    kept = {name: response.headers[name] for name in ("Retry-After", "Vary", "Location") if name in response.headers}
    return Response(status_code=304, headers={**headers, **kept})
