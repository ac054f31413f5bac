"""JSON routes refuse other bodies by their type, instead of complaining about fields that they could not find."""

from __future__ import annotations

from fastapi import Depends, Request

from core.errors import UnsupportedMediaType


async def require_json(request: Request) -> None:
    """Raise UnsupportedMediaType for a body that does not say it is JSON."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise UnsupportedMediaType("Send a JSON body with Content-Type: application/json.")


JsonOnly = Depends(require_json)
