"""Erasing batches that were deleted: their items, their jobs and the pictures of these."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import chain

from core.batches.documents import BatchDocuments
from core.batches.records import ADMITTED, Batch, DeletedBatch
from core.errors import BatchNotFound
from core.ids import time_of
from core.jobs.service import JobService
from core.storage import keys


class BatchErasure:
    """Erases deleted batches. Any of it can be done again without harm."""

    def __init__(self, documents: BatchDocuments, jobs: JobService, *, erase_seconds: float) -> None:
        """`erase_seconds`: how long after a deletion a worker may still write to a job."""
        self._documents = documents
        self._jobs = jobs
        self._erase_seconds = erase_seconds

    def erase(self, tenant: str, batch_id: str, is_late: Callable[[], bool]) -> None:
        """Erase a deleted batch, until it `is_late`; the rest the next time."""
        batch = self._documents.find(tenant, batch_id)
        if batch is None or self._erase_items(batch, is_late):
            self._documents.end_deletion(tenant, batch_id)

    def erase_late(self) -> None:
        """Erase what ran when its batch was deleted once more, when no worker can be left that writes to it."""
        for tenant, batch_id in list(self._documents.marked(keys.LATE_BATCHES)):
            deleted = self._documents.deleted(tenant, batch_id, keys.LATE_BATCHES)
            if time.time() - deleted.at > self._erase_seconds:
                self._jobs.erase(tenant, dict.fromkeys(deleted.late, ()))
                self._documents.end_late(tenant, batch_id)

    def delete_old(self, kept_seconds: float) -> None:
        """Delete batches that are over and were made longer ago than this."""
        for tenant, batch_id in list(self._documents.marked(keys.OVER_BATCHES)):
            if time.time() - time_of(batch_id) > kept_seconds:
                self._documents.put_deleted(tenant, batch_id, DeletedBatch(at=time.time()))

    def _erase_items(self, batch: Batch, is_late: Callable[[], bool]) -> bool:
        """Whether all of it is erased."""
        tenant = batch.tenant
        self._note_late_jobs(batch)
        for part in range(batch.parts):
            if is_late():
                return False
            items = self._documents.part(tenant, batch.id, part)
            subjects_of = {batch.job_id(item.index): item.subject_ids for item in items if item.request}
            self._jobs.erase(tenant, subjects_of)
            for subject_id in set(chain.from_iterable(subjects_of.values())):
                self._documents.unmark_subject(tenant, subject_id, batch.id)
            self._documents.put_part(tenant, batch.id, part, ())
        self._documents.drop(tenant, batch.id)
        return True

    def _note_late_jobs(self, batch: Batch) -> None:
        """Keep the ids of the jobs that are queued or running: their workers may write after they were erased."""
        deleted = self._documents.deleted(batch.tenant, batch.id)
        if deleted.late:
            return
        try:
            states = self._documents.states(batch).states
        except BatchNotFound:  # erased by a process that did not come to the end
            states = ""
        late = tuple(batch.job_id(index) for index, state in enumerate(states) if state in ADMITTED)
        self._documents.put_deleted(batch.tenant, batch.id, deleted.model_copy(update={"late": late}))
