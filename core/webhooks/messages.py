"""Messages to webhooks: the types of event, and what the message about one event says."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from core.ids import derived_id, is_test


class WebhookEvent(StrEnum):
    """The types of event that webhooks can receive. A new type is a line here, and a function in publish.py."""

    JOB_SUCCEEDED = "job.succeeded"
    JOB_FAILED = "job.failed"
    JOB_CANCELED = "job.canceled"
    SUBJECT_READY = "subject.ready"
    SUBJECT_DELETED = "subject.deleted"
    BATCH_COMPLETED = "batch.completed"
    BATCH_CANCELED = "batch.canceled"
    TEST = "webhook.test"
    """Requested by the tenant, and sent whatever events the webhook is for."""


@dataclass(frozen=True)
class Message:
    """One event as a message. `data` has only ids and states; `key` names the job, subject or batch it is about."""

    tenant: str
    event: WebhookEvent
    at: float
    key: str
    data: dict[str, str]

    @property
    def id(self) -> str:
        """The message's id, derived from the event: publishing the same event again makes the same id."""
        return derived_id("msg", self.at, f"{self.tenant} {self.event} {self.key}")

    @property
    def body(self) -> str:
        """The JSON payload: type, timestamp, whether no test key was at work, data."""
        when = datetime.fromtimestamp(self.at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        payload = {"type": self.event, "timestamp": when, "livemode": not is_test(self.tenant), "data": self.data}
        return json.dumps(payload, separators=(",", ":"))
