"""What is sent to webhooks when a job ends, a subject is deleted, or a batch ends. Raises StoreUnavailable.

The caller publishes before it records the change itself, so that the message is sent at least once whoever dies.
"""

from __future__ import annotations

from redis import Redis

from core.records import Job, JobKind, JobState, Receipt
from core.storage import Store
from core.webhooks.messages import Message, WebhookEvent
from core.webhooks.registry import Webhooks

_ENDINGS = {
    JobState.SUCCEEDED: WebhookEvent.JOB_SUCCEEDED,
    JobState.FAILED: WebhookEvent.JOB_FAILED,
    JobState.CANCELED: WebhookEvent.JOB_CANCELED,
}


def job_ended(store: Store, redis: Redis, job: Job) -> None:
    """Publish that a job has ended, and, when it made a subject ready, that as well."""
    at = job.created_at if job.finished_at is None else job.finished_at
    data = {"job_id": job.id, "subject_id": job.subject_id, "kind": job.kind.value, "status": job.state.value}
    webhooks = Webhooks(store, redis)
    webhooks.publish(Message(job.tenant, _ENDINGS[job.state], at, job.id, data))
    if job.kind is JobKind.PERSONALIZE and job.state is JobState.SUCCEEDED:
        ready = {"subject_id": job.subject_id, "job_id": job.id, "status": "ready"}
        webhooks.publish(Message(job.tenant, WebhookEvent.SUBJECT_READY, at, job.id, ready))


def subject_deleted(store: Store, redis: Redis, receipt: Receipt) -> None:
    """Publish that a subject was deleted."""
    data = {"subject_id": receipt.subject_id, "status": "deleted"}
    message = Message(receipt.tenant, WebhookEvent.SUBJECT_DELETED, receipt.deleted_at, receipt.subject_id, data)
    Webhooks(store, redis).publish(message)


def batch_ended(store: Store, redis: Redis, tenant: str, batch_id: str, at: float, *, canceled: bool) -> None:
    """Publish that all items of a batch have ended."""
    event = WebhookEvent.BATCH_CANCELED if canceled else WebhookEvent.BATCH_COMPLETED
    data = {"batch_id": batch_id, "status": "canceled" if canceled else "completed"}
    Webhooks(store, redis).publish(Message(tenant, event, at, batch_id, data))
