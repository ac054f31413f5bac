"""Messages to webhooks: what can be told, what one message says, and how the attempts to deliver it went."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from core.ids import derived_id
from core.records import DeliveryState, Record


class Event(StrEnum):
    """What can be told. `tell` takes any of them; a new kind is a line here, and a call where it happens."""

    JOB_SUCCEEDED = "job.succeeded"
    JOB_FAILED = "job.failed"
    JOB_CANCELED = "job.canceled"
    SUBJECT_READY = "subject.ready"
    SUBJECT_DELETED = "subject.deleted"
    BATCH_COMPLETED = "batch.completed"
    BATCH_CANCELED = "batch.canceled"
    TEST = "webhook.test"
    """Asked for by the tenant, and sent whatever else the webhook is for."""


class Attempt(Record):
    """One try. `status` is what was answered, or None: then `error` says why nothing was."""

    at: float
    seconds: float
    status: int | None = None
    error: str | None = None


class Delivery(Record):
    """One message to one webhook. `body` is sent as it stands; `id` is the message's, at every webhook the same."""

    id: str
    tenant: str
    webhook_id: str
    type: str
    body: str
    created_at: float
    state: DeliveryState = DeliveryState.PENDING
    attempts: tuple[Attempt, ...] = ()
    next_at: float | None = None


@dataclass(frozen=True)
class Happening:
    """Something to tell: `data` are ids and states. `about` names it, so that it is the same message again."""

    tenant: str
    event: Event
    at: float
    about: str
    data: dict[str, str]

    @property
    def message_id(self) -> str:
        """The same whenever it is noted."""
        return derived_id("msg", self.at, f"{self.tenant} {self.event} {self.about}")

    @property
    def body(self) -> str:
        """The payload: type, time, data."""
        when = datetime.fromtimestamp(self.at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return json.dumps({"type": self.event, "timestamp": when, "data": self.data}, separators=(",", ":"))
