"""Webhooks: addresses that signed messages about events are posted to, and the log of those deliveries."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal, TypeAlias

from pydantic import Field, StringConstraints

from hyperdreambooth.schemas.base import EXAMPLE_TIME, WEBHOOK_ID, Answer, RequestModel

MESSAGE_ID = "msg_01k2c9hq5w1d6g9j3m8q4s7vb"
MAX_URL = 2048
URL = "https://example.com/hooks/pictures"

WebhookEventName: TypeAlias = Literal[
    "job.succeeded",
    "job.failed",
    "job.canceled",
    "subject.ready",
    "subject.deleted",
    "batch.completed",
    "batch.canceled",
]


class DeliveryStatus(StrEnum):
    """The status of a message to a webhook; all but the first are final."""

    PENDING = "pending"
    """To be sent, for the first time or again."""
    DELIVERED = "delivered"
    """The other side answered with a 2xx."""
    GIVEN_UP = "given_up"
    """It did not for 24 hours, or said 410 (Gone)."""
    DROPPED = "dropped"
    """The webhook was disabled before."""


class WebhookRequest(RequestModel):
    """An address for messages, and the events that they are about."""

    url: Annotated[str, StringConstraints(min_length=1, max_length=MAX_URL)] = Field(
        description="A public https address, on port 443 or 8443. Redirects are not followed.",
        examples=[URL],
        json_schema_extra={"format": "uri"},
    )
    events: Annotated[list[WebhookEventName], Field(min_length=1, max_length=20)] | None = Field(
        default=None,
        description="Which events; when left out all, also those that are added later.",
        examples=[["job.succeeded", "job.failed"]],
    )
    description: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)] | None = Field(
        default=None, description="For yourself.", examples=["the shop's backend"]
    )


class WebhookAnswer(Answer):
    """A webhook. `events` null: all. With a `disabled_at` nothing is sent: the address said 410."""

    id: str = Field(examples=[WEBHOOK_ID])
    url: str = Field(examples=[URL])
    events: list[str] | None = Field(default=None, examples=[["job.succeeded", "job.failed"]])
    description: str | None = Field(default=None, examples=["the shop's backend"])
    created_at: datetime = Field(examples=[EXAMPLE_TIME])
    disabled_at: datetime | None = None
    old_secrets_until: datetime | None = Field(
        default=None, description="So long messages are signed with the secrets before the present one, too."
    )


class WebhookCreated(WebhookAnswer):
    """A webhook with its new secret, which its messages are signed with: it cannot be read again."""

    secret: str = Field(
        description="`whsec_` and the key in base64, as Standard Webhooks has it.",
        examples=["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo="],
    )


class WebhookList(Answer):
    """All webhooks, oldest first: there are few."""

    webhooks: list[WebhookAnswer]


class AttemptAnswer(Answer):
    """One try. `status_code` is what was answered; without an answer `error` says why."""

    attempt: int = Field(description="The first is 1.", examples=[1])
    at: datetime = Field(examples=[EXAMPLE_TIME])
    seconds: float = Field(examples=[0.21])
    status_code: int | None = Field(default=None, examples=[503])
    error: str | None = Field(default=None, description="Such as `no answer within 10 s` or `TLS failed`.")


class DeliveryAnswer(Answer):
    """One message to a webhook, and how the attempts went. `id` is sent with it, as `webhook-id`."""

    id: str = Field(examples=[MESSAGE_ID])
    webhook_id: str = Field(examples=[WEBHOOK_ID])
    type: str = Field(examples=["job.succeeded"])
    status: DeliveryStatus = Field(examples=["pending"])
    created_at: datetime = Field(description="When it happened.", examples=[EXAMPLE_TIME])
    attempts: list[AttemptAnswer]
    next_attempt_at: datetime | None = Field(default=None, examples=["2024-05-04T10:20:41.700000Z"])


class DeliveryList(Answer):
    """Deliveries, the newest first."""

    deliveries: list[DeliveryAnswer]
