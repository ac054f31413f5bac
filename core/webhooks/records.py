"""What is stored of webhooks: the webhook itself, each delivery to it, and each attempt at a delivery."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Callable

from pydantic import Field

from core.records import DeliveryState, Record
from core.webhooks.messages import WebhookEvent

MOST_FORMER = 4
"""Replaced secrets of a webhook that are still valid: each adds a signature to every message."""


class FormerSecret(Record):
    """A secret that was replaced. Messages are signed with it as well until `until`, in seconds since 1970."""

    secret: str = Field(repr=False)
    until: float


class Webhook(Record):
    """A tenant's webhook. `events` None means all events. `secret` is `whsec_` and base64 (Standard Webhooks)."""

    id: str
    tenant: str
    url: str = Field(repr=False)
    secret: str = Field(repr=False)
    events: tuple[str, ...] | None = None
    description: str | None = None
    created_at: float
    disabled_at: float | None = None
    former: tuple[FormerSecret, ...] = ()
    """The newest first."""

    def secrets_at(self, at: float) -> list[str]:
        """The secrets that a message is signed with at this time: the present one, then the former ones still valid."""
        return [self.secret, *(each.secret for each in self.former if each.until > at)]

    def rotated(self, at: float, overlap: float) -> Webhook:
        """The webhook with a new secret. The former secrets end at most `overlap` seconds after `at`."""
        until = at + overlap
        former = [(self.secret, until), *((each.secret, min(each.until, until)) for each in self.former)]
        kept = [FormerSecret(secret=secret, until=until) for secret, until in former if until > at]
        return self.model_copy(update={"secret": new_secret(), "former": tuple(kept[:MOST_FORMER])})

    def with_secrets(self, change: Callable[[str], str]) -> Webhook:
        """The webhook with each of its secrets changed: encrypted, or decrypted."""
        former = tuple(each.model_copy(update={"secret": change(each.secret)}) for each in self.former)
        return self.model_copy(update={"secret": change(self.secret), "former": former})

    def wants(self, event: WebhookEvent) -> bool:
        """Whether this event is sent to the webhook."""
        return self.disabled_at is None and (event is WebhookEvent.TEST or self.events is None or event in self.events)


class Attempt(Record):
    """One attempt at a delivery. `status` is the HTTP status of the answer; without an answer `error` says why."""

    at: float
    seconds: float
    status: int | None = None
    error: str | None = None


class Delivery(Record):
    """One message to one webhook. `body` is sent unchanged; `id` is the message's id, the same at every webhook."""

    id: str
    tenant: str
    webhook_id: str
    type: str
    body: str
    created_at: float
    state: DeliveryState = DeliveryState.PENDING
    attempts: tuple[Attempt, ...] = ()
    next_at: float | None = None


def new_secret() -> str:
    """A signing secret of 32 random bytes: `whsec_` and base64."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
