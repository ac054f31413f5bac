"""Health: is the process alive, and can it serve requests."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from hyperdreambooth.schemas.base import Answer


class Health(Answer):
    """The process is alive."""

    status: Literal["ok"] = "ok"


class Readiness(Answer):
    """Whether each thing the service needs answers, and whether what is deleted goes: `ok`, or what is wrong."""

    status: Literal["ready", "unready"]
    checks: dict[str, str] = Field(examples=[{"redis": "ok", "store": "ok", "workers": "ok", "erasures": "ok"}])
