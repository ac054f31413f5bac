"""What a request asks for, as a hash: two requests with the same fingerprint are the same request sent twice."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import AsyncGenerator
from typing import Any

from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

_MAX_FORM_BYTES = 32 * 1024 * 1024


def fingerprint_of(query: str, content: Any, *, key: str) -> str:
    """The HMAC-SHA256, in hex, of a query string and `content_of` a body, keyed with the request's Idempotency-Key."""
    text = json.dumps([query, content], sort_keys=True)
    return hmac.digest(key.encode(), text.encode("utf-8", "surrogatepass"), "sha256").hex()


async def content_of(headers: Headers, body: bytes) -> Any:
    """A body in a form that does not depend on how it was written, to be dumped as JSON.

    JSON comes without its spacing, a form as the names and hashes of its parts (without boundary and file names), and
    any other body as its SHA-256.
    """
    kind = headers.get("content-type", "")
    if kind.startswith("multipart/form-data"):
        parts = await _form_parts(headers, body)
        if parts is not None:
            return parts
    if is_json(headers):
        try:
            return json.loads(body)
        except (ValueError, RecursionError):
            pass
    return hashlib.sha256(body).hexdigest()


def is_json(headers: Headers) -> bool:
    """Whether the Content-Type is a kind of JSON."""
    return "json" in headers.get("content-type", "").partition(";")[0]


async def _form_parts(headers: Headers, body: bytes) -> list[tuple[str, str]] | None:
    """Name and SHA-256 of each part of a form, in order; None when it is not a form (its route will refuse it)."""

    async def whole() -> AsyncGenerator[bytes, None]:
        yield body

    parser = MultiPartParser(headers, whole(), max_part_size=_MAX_FORM_BYTES)
    parser.spool_max_size = _MAX_FORM_BYTES  # a photo never goes to a temporary file
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError):
        return None
    parts = []
    for name, value in form.multi_items():
        data = await value.read() if isinstance(value, UploadFile) else value.encode("utf-8", "surrogatepass")
        parts.append((name, hashlib.sha256(data).hexdigest()))
    await form.close()
    return parts
