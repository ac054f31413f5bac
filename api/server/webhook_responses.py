"""From the records of webhooks and deliveries to the API's answers."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from core.webhooks.records import Attempt, Delivery, Webhook
from hyperdreambooth.schemas.webhooks import (
    AttemptAnswer,
    DeliveryAnswer,
    DeliveryStatus,
    WebhookAnswer,
    WebhookCreated,
)


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
        status=DeliveryStatus(delivery.state),
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
