"""Routes that take JSON refuse other bodies by their type, rather than report missing fields."""

from __future__ import annotations

from fastapi import Depends, Request

from core.errors import UnsupportedMediaType


async def require_json(request: Request) -> None:
    """Raise UnsupportedMediaType when the Content-Type is not JSON."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise UnsupportedMediaType("Send a JSON body with Content-Type: application/json.")


JsonOnly = Depends(require_json)
