"""Batches: many generations, accepted at once and done when nothing else waits.

What an item needs to run is in its part; once it is admitted to the queue (scheduler.py) it is a job like any other,
whose id follows from the batch's id and the item's number. So everything can be done again by anybody: Redis holds
nothing of a batch. The scheduler alone changes states and parts, one scheduler at a time.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from itertools import groupby, islice

from core.batches.documents import BatchDocuments
from core.batches.records import PART, BatchState, DeletedBatch, ItemState, ItemWithJob, status_of
from core.batches.upload import BatchUpload, UploadLimits
from core.errors import BatchNotFound, BatchOver
from core.ids import is_id
from core.jobs.service import JobService
from core.records import ItemStatus
from core.subjects.service import SubjectService


class BatchService:
    """The batches of all tenants. Raises StoreUnavailable; BrokerUnavailable only where it is about jobs."""

    def __init__(self, documents: BatchDocuments, jobs: JobService, subjects: SubjectService) -> None:
        self._documents = documents
        self._jobs = jobs
        self._subjects = subjects

    def open_upload(self, tenant: str, limits: UploadLimits, *, request_id: str = "") -> BatchUpload:
        """A new batch that is being sent. Raises QueueFull when the tenant has too many that are not over."""
        return BatchUpload(self._documents, self._subjects, tenant, limits, request_id=request_id)

    def get(self, tenant: str, batch_id: str) -> BatchState:
        """The batch with the states of its items. Raises BatchNotFound, also while it is being deleted."""
        batch = self._documents.find(tenant, batch_id) if is_id(batch_id, "bat") else None
        if batch is None or self._documents.is_deleted(tenant, batch_id):
            raise BatchNotFound(f"There is no batch {batch_id[:40]}.")
        return BatchState(batch, self._documents.states(batch), self._documents.is_canceled(batch))

    def find(self, tenant: str, batch_id: str) -> BatchState | None:
        """The same, or None."""
        try:
            return self.get(tenant, batch_id)
        except BatchNotFound:
            return None

    def page(self, tenant: str, *, limit: int, after: str = "") -> tuple[list[BatchState], str | None]:
        """The newest batches, at most `limit`, older than the batch `after`; and the last id when there are more."""
        ids = [batch_id for batch_id in reversed(self._documents.ids(tenant)) if not after or batch_id < after]
        found = []
        for batch_id in ids[:limit]:
            try:
                found.append(self.get(tenant, batch_id))
            except BatchNotFound:
                continue
        return found, ids[limit - 1] if len(ids) > limit else None

    def items(self, state: BatchState, indices: Sequence[int]) -> Iterator[ItemWithJob]:
        """These items with their jobs; `indices` ascend. A part at a time is in memory."""
        for part, some in groupby(indices, key=lambda index: index // PART):
            yield from self._items_of(state, part, set(some))

    def pick(self, state: BatchState, *, status: ItemStatus | None, start: int, limit: int) -> list[int]:
        """The numbers of the next items that have this status, from `start` on, as far as their states tell."""
        states = enumerate(state.items.states[start:], start)
        return list(islice((index for index, each in states if status in (None, ItemState(each).status)), limit))

    def cancel(self, tenant: str, batch_id: str) -> BatchState:
        """Do nothing more of it: the scheduler takes out what is queued and stops what runs. Raises BatchOver."""
        state = self.get(tenant, batch_id)
        if state.is_over:
            raise BatchOver(f"Batch {batch_id} is already over.")
        self._documents.cancel(state.batch)
        return BatchState(state.batch, state.items, is_canceled=True)

    def delete(self, tenant: str, batch_id: str) -> None:
        """From here on it is not there; the scheduler erases its items, its jobs and their pictures."""
        self.get(tenant, batch_id)
        self._documents.put_deleted(tenant, batch_id, DeletedBatch(at=time.time()))

    def _items_of(self, state: BatchState, part: int, indices: set[int]) -> Iterator[ItemWithJob]:
        batch, states = state.batch, state.items.states
        items = [item for item in self._documents.part(batch.tenant, batch.id, part) if item.index in indices]
        have_jobs = [item.index for item in items if item.request and states[item.index] != ItemState.WAITING]
        found = self._jobs.get_many(batch.tenant, [batch.job_id(index) for index in have_jobs])
        jobs = {job.id: job for job, _ in found}
        for item in items:
            job = jobs.get(batch.job_id(item.index))
            yield ItemWithJob(item, status_of(item, ItemState(states[item.index]), job), job)
