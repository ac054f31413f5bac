"""What goes over the wire about webhooks, and how it comes out of the records."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, StringConstraints

from core.records import DeliveryState
from core.webhooks.addresses import MAX_URL
from hyperdreambooth.schemas.service import EXAMPLE_TIME, Answer, Asked

if TYPE_CHECKING:
    from core.webhooks.records import Attempt, Delivery, Webhook

WEBHOOK_ID = "whk_01k2c9f4m3e8n5r7t2v6x0z4a"
MESSAGE_ID = "msg_01k2c9hq5w1d6g9j3m8q4s7vb"
URL = "https://example.com/hooks/pictures"

EventName = Literal[
    "job.succeeded",
    "job.failed",
    "job.canceled",
    "subject.ready",
    "subject.deleted",
    "batch.completed",
    "batch.canceled",
]


class WebhookRequest(Asked):
    """Where to tell, and of what."""

    url: Annotated[str, StringConstraints(min_length=1, max_length=MAX_URL)] = Field(
        description="A public https address, on port 443 or 8443. Redirects are not followed.",
        examples=[URL],
        json_schema_extra={"format": "uri"},
    )
    events: Annotated[list[EventName], Field(min_length=1, max_length=20)] | None = Field(
        default=None,
        description="What to tell; when left out everything, also what is added later.",
        examples=[["job.succeeded", "job.failed"]],
    )
    description: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)] | None = Field(
        default=None, description="For yourself.", examples=["the shop's backend"]
    )


class WebhookAnswer(Answer):
    """A webhook. `events` null: everything. With a `disabled_at` nothing is sent: the address said 410."""

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
    """A webhook with its new secret, which its messages are signed with: it is not shown again."""

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
    status: DeliveryState = Field(examples=["pending"])
    created_at: datetime = Field(description="When it happened.", examples=[EXAMPLE_TIME])
    attempts: list[AttemptAnswer]
    next_attempt_at: datetime | None = Field(default=None, examples=["2024-05-04T10:20:41.700000Z"])


class DeliveryList(Answer):
    """Deliveries, the newest first."""

    deliveries: list[DeliveryAnswer]


def webhook_answer(webhook: Webhook) -> WebhookAnswer:
    """A webhook without its secrets."""
    until = max((each.until for each in webhook.former), default=0.0)
    return WebhookAnswer(
        id=webhook.id,
        url=webhook.url,
        events=None if webhook.events is None else list(webhook.events),
        description=webhook.description,
        created_at=_time(webhook.created_at),
        disabled_at=None if webhook.disabled_at is None else _time(webhook.disabled_at),
        old_secrets_until=_time(until) if until > time.time() else None,
    )


def created_answer(webhook: Webhook) -> WebhookCreated:
    """A webhook with its secret."""
    return WebhookCreated(**webhook_answer(webhook).model_dump(), secret=webhook.secret)


def delivery_answer(delivery: Delivery) -> DeliveryAnswer:
    """A delivery and its attempts."""
    return DeliveryAnswer(
        id=delivery.id,
        webhook_id=delivery.webhook_id,
        type=delivery.type,
        status=delivery.state,
        created_at=_time(delivery.created_at),
        attempts=[_attempt(number, attempt) for number, attempt in enumerate(delivery.attempts, start=1)],
        next_attempt_at=None if delivery.next_at is None else _time(delivery.next_at),
    )


def _attempt(number: int, attempt: Attempt) -> AttemptAnswer:
    return AttemptAnswer(
        attempt=number,
        at=_time(attempt.at),
        seconds=attempt.seconds,
        status_code=attempt.status,
        error=attempt.error,
    )


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
