"""The store's side of the jobs: what was accepted, how it ended, whom it is about. Documents under keys.py's keys."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from core.errors import ObjectNotFound, SubjectNotFound
from core.ids import is_id
from core.jobs import listing
from core.records import Job, JobKind, JobState, Receipt, Record, Request, Subject
from core.storage import Store, keys
from core.tenants import idempotency

_JSON = "application/json"
RecordT = TypeVar("RecordT", bound=Record)


class Accepted(Record):
    """What was promised to somebody: the request, and what is needed to queue it again."""

    tenant: str
    job_id: str
    created_at: float
    request_id: str = ""
    batch_id: str = ""
    request: Request

    def as_job(self) -> Job:
        """The job at its beginning."""
        return Job(
            id=self.job_id,
            tenant=self.tenant,
            kind=JobKind(self.request.kind),
            subject_id=self.request.subject_ids[0],
            blended_with=self.request.subject_ids[1:],
            batch_id=self.batch_id,
            state=JobState.QUEUED,
            created_at=self.created_at,
            request_id=self.request_id,
        )


class Archive:
    """Documents in the store. Raises StoreUnavailable."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def put_accepted(self, accepted: Accepted) -> None:
        """Make the request durable."""
        self._put(keys.pending(accepted.tenant, accepted.job_id), accepted)

    def accepted(self, tenant: str, job_id: str) -> Accepted | None:
        """The request of a job that is not over, or None."""
        return self._get(keys.pending(tenant, job_id), Accepted)

    def drop_accepted(self, tenant: str, job_id: str) -> None:
        """The promise is kept, or void."""
        self.store.delete(keys.pending(tenant, job_id))

    def all_accepted(self) -> Iterator[tuple[str, str]]:
        """(tenant, job id) of everything that was accepted and is not over."""
        for key in self.store.list(keys.PENDING):
            _, tenant, name = key.split("/")
            yield tenant, name.removesuffix(".json")

    def put_outcome(self, job: Job) -> Job:
        """Write down how the job ended, once: a second ending does not replace the first. Gives the one that counts."""
        first = self.outcome(job.tenant, job.id)
        if first is None:
            self._put(keys.outcome(job.tenant, job.id), job)
        return first or job

    def outcome(self, tenant: str, job_id: str) -> Job | None:
        """How the job ended, or None."""
        return self._get(keys.outcome(tenant, job_id), Job)

    def mark(self, tenant: str, subject_ids: Sequence[str], job_id: str) -> None:
        """Note that the job belongs to the subjects, to each of them."""
        for subject_id in subject_ids:
            self.store.put(f"{keys.markers(tenant, subject_id)}{job_id}", b"")

    def unmark(self, tenant: str, subject_ids: Sequence[str], job_id: str) -> None:
        """The job is not the subjects' after all."""
        for subject_id in subject_ids:
            self.store.delete(f"{keys.markers(tenant, subject_id)}{job_id}")

    def is_at_rest(self, tenant: str, job_id: str) -> bool:
        """Whether nobody can be left who writes to the job: its first attempt has succeeded, and been written down."""
        job = self.outcome(tenant, job_id)
        once = job is not None and job.state is JobState.SUCCEEDED and job.attempt == 1
        return once and not self.store.exists(keys.pending(tenant, job_id))

    def is_marked(self, job: Job) -> bool:
        """Whether the job belongs to any of its subjects, as all that were accepted do."""
        return any(self.store.exists(f"{keys.markers(job.tenant, each)}{job.id}") for each in job.subject_ids)

    def job_ids(self, tenant: str, subject_id: str) -> list[str]:
        """The jobs that belong to the subject."""
        prefix = keys.markers(tenant, subject_id)
        return [key.removeprefix(prefix) for key in self.store.list(prefix)]

    def put_subject(self, subject: Subject) -> None:
        """Write the subject's document."""
        self._put(keys.document(subject.tenant, subject.id), subject)

    def subject(self, tenant: str, subject_id: str) -> Subject:
        """The subject's document. Raises SubjectNotFound, also when only its tombstone is left."""
        subject = self._get(keys.document(tenant, subject_id), Subject) if is_id(subject_id, "sub") else None
        if subject is None or self.receipt(tenant, subject_id):
            raise SubjectNotFound(f"There is no subject {subject_id[:40]}.")
        return subject

    def subjects(self, tenant: str, *, after: str = "") -> Iterator[Subject]:
        """The tenant's subjects, newest first; those older than the subject `after`. All names are read before."""
        prefix, end = keys.subjects(tenant), "/subject.json"
        names = [key.removeprefix(prefix).removesuffix(end) for key in self.store.list(prefix) if key.endswith(end)]
        for subject_id in reversed(names):
            if not after or subject_id < after:
                with contextlib.suppress(SubjectNotFound):
                    yield self.subject(tenant, subject_id)

    def put_receipt(self, receipt: Receipt) -> None:
        """Write the subject's tombstone, and note that it is to be erased (again) until nobody can write to it."""
        self._put(keys.erasure(receipt.tenant, receipt.subject_id), receipt)
        self.store.put(keys.erasing(receipt.tenant, receipt.subject_id), b"")

    def receipt(self, tenant: str, subject_id: str) -> Receipt | None:
        """The subject's tombstone, or None."""
        return self._get(keys.erasure(tenant, subject_id), Receipt)

    def receipts(self, job: Job) -> list[Receipt]:
        """The tombstones of the subjects of a job."""
        found = (self.receipt(job.tenant, subject_id) for subject_id in job.subject_ids)
        return [receipt for receipt in found if receipt]

    def erasing(self) -> Iterator[Receipt]:
        """Tombstones of subjects that somebody who was late may still write to."""
        for key in self.store.list(keys.ERASING):
            _, tenant, subject_id = key.split("/")
            if receipt := self.receipt(tenant, subject_id):
                yield receipt

    def erased(self, receipt: Receipt) -> None:
        """Nobody can write to the subject any more."""
        self.store.delete(keys.erasing(receipt.tenant, receipt.subject_id))

    def drop_receipts(self, before: float) -> None:
        """Forget subjects that were deleted before this time."""
        for key in self.store.list(keys.ERASURES):
            receipt = self._get(key, Receipt)
            if receipt and receipt.deleted_at < before:
                self.store.delete(key)

    def put_attempt(self, job: Job, name: str, data: bytes, *, content_type: str) -> str:
        """Store what an attempt made, under a key that no other attempt uses; gives the key."""
        key = f"{keys.attempt(job.tenant, job.id, job.fence)}{name}"
        self.store.put(key, data, content_type=content_type)
        return key

    def drop_attempt(self, tenant: str, job_id: str, fence: int) -> None:
        """Remove what an attempt made that came to nothing."""
        self.store.delete_prefix(keys.attempt(tenant, job_id, fence))

    def drop_other_attempts(self, job: Job) -> None:
        """Remove what the job made in attempts that do not count, which is all of it unless it succeeded."""
        keep = keys.attempt(job.tenant, job.id, job.fence) if job.state is JobState.SUCCEEDED else None
        for key in self.store.list(keys.job(job.tenant, job.id)):
            if key != keys.outcome(job.tenant, job.id) and not (keep and key.startswith(keep)):
                self.store.delete(key)

    def erase(self, receipt: Receipt, job_ids: Iterable[str]) -> None:
        """Remove the subject, these jobs of it, and everything they made."""
        tenant = receipt.tenant
        for job_id in job_ids:
            self.erase_job(tenant, job_id)
        self._blank_in_batches(tenant, receipt.subject_id)
        idempotency.erase(self.store, tenant, receipt.subject_id)
        self.store.delete_prefix(keys.subject(tenant, receipt.subject_id))
        self.store.delete_prefix(keys.markers(tenant, receipt.subject_id))

    def erase_job(self, tenant: str, job_id: str) -> None:
        """Remove a job and everything it made."""
        self.store.delete(keys.pending(tenant, job_id))
        self.store.delete_prefix(keys.job(tenant, job_id))
        listing.forget(self.store, tenant, job_id)

    def _blank_in_batches(self, tenant: str, subject_id: str) -> None:
        """Have the subject's items taken out of all batches by the scheduler: those that are over are opened again."""
        prefix = keys.subject_batches(tenant, subject_id)
        for marker in list(self.store.list(prefix)):
            batch_id = marker.removeprefix(prefix)
            self.store.put(f"{keys.blanked(tenant, batch_id)}{subject_id}", b"")
            self.store.put(f"{keys.OPEN_BATCHES}{tenant}/{batch_id}", b"")
            self.store.delete(marker)

    def _put(self, key: str, record: Record) -> None:
        self.store.put(key, record.model_dump_json().encode(), content_type=_JSON)

    def _get(self, key: str, kind: type[RecordT]) -> RecordT | None:
        try:
            return kind.model_validate_json(self.store.get(key))
        except ObjectNotFound:
            return None
