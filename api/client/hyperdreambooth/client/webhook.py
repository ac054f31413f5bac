"""Checks that a webhook's message is from the service: Standard Webhooks, an HMAC over its id, time and body."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import time
from collections.abc import Mapping
from typing import Any

MOST_SECONDS_OFF = 300
"""How old (or early) a delivery may be: an older one may be a replay."""


class ForgedDelivery(Exception):
    """The delivery was not signed with this secret, or not lately."""


def verify_webhook(body: bytes, headers: Mapping[str, str], secret: str, *, now: float | None = None) -> dict[str, Any]:
    """The message, when it is the service's: its `type`, `timestamp` and `data`. Raises ForgedDelivery.

    `body` is the request's as it came, `headers` are its headers in any spelling, `secret` is what `create_webhook`
    answered with (`whsec_...`); `now` is the time in seconds since 1970.
    """
    given = {name.lower(): value for name, value in headers.items()}
    name, stamp, signatures = (given.get(f"webhook-{part}", "") for part in ("id", "timestamp", "signature"))
    if not stamp.isdecimal() or abs((time.time() if now is None else now) - int(stamp)) > MOST_SECONDS_OFF:
        raise ForgedDelivery("The delivery has no time, or is too old.")
    try:
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except binascii.Error:
        raise ForgedDelivery("This is no webhook's secret.") from None
    digest = hmac.digest(key, f"{name}.{stamp}.".encode() + body, hashlib.sha256)
    wanted = b"v1," + base64.b64encode(digest)
    if not any(hmac.compare_digest(wanted, signature.encode()) for signature in signatures.split()):
        raise ForgedDelivery("The delivery is not signed with this secret.")
    message: dict[str, Any] = json.loads(body)
    return message
