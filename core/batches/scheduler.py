"""The scheduler: takes items of batches to the queue, a few at a time, and writes down what becomes of them.

Any number of schedulers may run; a lock in Redis lets one of them work at a time, and one that ends in the middle does
no harm. An item is admitted before its state says so: whoever comes next admits it again, under the same job id, and
that changes nothing.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from typing import TypedDict, Unpack

from core.batches.documents import BatchDocuments
from core.batches.erasure import BatchErasure
from core.batches.records import ADMITTED, PART, Batch, Item, ItemState, ItemStates
from core.errors import BrokerUnavailable, JobNotFound, JobOver, SubjectNotFound
from core.ids import time_of
from core.jobs.archive import Accepted
from core.jobs.service import JobService
from core.queue.failures import Failures
from core.queue.locks import Locks
from core.storage import keys

_log = logging.getLogger(__name__)
_LOCK = "feeding"
_LOCK_PASSES = 20
"""How many times `pass_seconds` the lock may be held. Nothing is begun in its second half."""
_AT_ONCE = 8
"""Items that are admitted at the same time."""
_ABANDONED_SECONDS = 2 * 3600.0
"""Longer than a batch may take to be sent: what is not whole by then never will be."""


class ScheduleOptions(TypedDict, total=False):
    """The scheduler's numbers."""

    window: int
    """How many items of a tenant may wait in the queue: 64."""
    pass_seconds: float
    """How long one pass takes: 1 s."""
    erase_seconds: float
    """How long after a deletion a worker may still write to a job: 1860 s."""


class BatchScheduler:
    """One pass over all batches at a time: `feed()`."""

    def __init__(
        self,
        documents: BatchDocuments,
        jobs: JobService,
        locks: Locks,
        on_over: Callable[[Batch, float, bool], None],
        failures: Failures,
        **options: Unpack[ScheduleOptions],
    ) -> None:
        """`on_over` is called with a batch, when its last item was over, and whether it was canceled; perhaps twice."""
        self._documents = documents
        self._jobs = jobs
        self._locks = locks
        self._on_over = on_over
        self._failures = failures
        self._erasure = BatchErasure(documents, jobs, erase_seconds=options.get("erase_seconds", 1860.0))
        self.window = options.get("window", 64)
        self.pass_seconds = options.get("pass_seconds", 1.0)
        self._until = 0.0

    def feed(self) -> None:
        """Admit items, write down what has become of others, erase what was deleted; nothing while another does."""
        if not self._locks.acquire(_LOCK, _LOCK_PASSES * self.pass_seconds):
            return
        self._until = time.monotonic() + self.pass_seconds
        give_up_at = time.monotonic() + _LOCK_PASSES * self.pass_seconds / 2
        waiting = self._jobs.queued_items()
        deleted = set(self._documents.marked(keys.DELETED_BATCHES))
        batches = sorted(self._documents.marked(keys.OPEN_BATCHES), key=lambda name: (waiting[name[0]], name[1]))
        for tenant, batch_id in batches:  # the tenant with the fewest in the queue first, of its batches the oldest
            if (tenant, batch_id) not in deleted and time.monotonic() < give_up_at:
                free = self.window - waiting[tenant]
                waiting[tenant] += self._guarded(batch_id, partial(self._advance, tenant, batch_id, free))
        self._until = time.monotonic() + self.pass_seconds  # a time of its own: it must not wait for the others
        for tenant, batch_id in deleted:
            self._failures.attempt("erase", f"{tenant}/{batch_id}", partial(self._erase, tenant, batch_id))
        if time.monotonic() < give_up_at:  # else another may have the lock by now
            self._locks.release(_LOCK)

    def drop_old(self, kept_seconds: float) -> None:
        """Delete batches that are over and were made longer ago than this; 0: none."""
        self._erasure.erase_late()
        if kept_seconds:
            self._erasure.delete_old(kept_seconds)

    def _guarded(self, batch_id: str, act: Callable[[], int]) -> int:
        """One batch's trouble must not keep the others waiting: what failed comes up again."""
        try:
            return act()
        except BrokerUnavailable:
            raise
        except Exception:  # noqa: BLE001 - whatever it is
            _log.warning("batch.schedule_failed", extra={"batch_id": batch_id}, exc_info=True)
            return 0

    def _erase(self, tenant: str, batch_id: str) -> None:
        self._erasure.erase(tenant, batch_id, lambda: time.monotonic() > self._until)

    def _advance(self, tenant: str, batch_id: str, free: int) -> int:
        """Take a batch on by at most `free` items. Returns how many were admitted."""
        batch = self._documents.find(tenant, batch_id)
        if batch is None:
            self._drop_abandoned(tenant, batch_id)
            return 0
        before = self._documents.states(batch)
        states = [ItemState(code) for code in before.states]
        blanked = self._blank(batch, states)
        self._follow(batch, states)
        canceled = self._documents.is_canceled(batch)
        admitted = self._withdraw(batch, states) if canceled else self._admit(batch, states, free)
        is_over = not {ItemState.WAITING, *ADMITTED} & set(states)
        finished_at = before.finished_at or (time.time() if is_over else None)
        after = ItemStates(states="".join(states), finished_at=finished_at, notified=before.notified)
        if after != before:
            self._documents.put_states(tenant, batch_id, after)
        if finished_at and not after.notified:  # with the time that is written down: repeated, it is the same message
            self._on_over(batch, finished_at, canceled)
            self._documents.put_states(tenant, batch_id, after.model_copy(update={"notified": True}))
        for subject_id in blanked:
            self._documents.end_blanking(tenant, batch_id, subject_id)
        if is_over:
            self._documents.close(batch)
        return admitted

    def _blank(self, batch: Batch, states: list[ItemState]) -> set[str]:
        """Take out everything about subjects that were deleted. Returns their ids."""
        gone = self._documents.blanked(batch.tenant, batch.id)
        for part in range(batch.parts if gone else 0):
            items = self._documents.part(batch.tenant, batch.id, part)
            left = [Item(index=item.index) if gone & {*item.subject_ids} else item for item in items]
            for item in left:
                if not item.request and not item.error:
                    states[item.index] = ItemState.ERASED
            if left != items:
                self._documents.put_part(batch.tenant, batch.id, part, left)
        return gone

    def _follow(self, batch: Batch, states: list[ItemState]) -> None:
        """See what has become of the items that were admitted. One without a job is being erased with its subject."""
        indices = {batch.job_id(index): index for index, state in enumerate(states) if state in ADMITTED}
        for job, _ in self._jobs.get_many(batch.tenant, list(indices)):
            states[indices[job.id]] = ItemState.of(job)

    def _admit(self, batch: Batch, states: list[ItemState], free: int) -> int:
        """Admit the next items in their order, some at once: it is mostly waiting for the store."""
        admitted = 0
        waiting = self._waiting(batch, states)
        with ThreadPoolExecutor(_AT_ONCE) as workers:
            while admitted < free and time.monotonic() < self._until:
                items = list(islice(waiting, min(_AT_ONCE, free - admitted)))
                if not items:
                    break
                now = workers.map(partial(self._admit_one, batch, time.time()), items)
                for item, state in zip(items, now, strict=True):
                    states[item.index] = state
                    admitted += state is ItemState.QUEUED
        return admitted

    def _waiting(self, batch: Batch, states: list[ItemState]) -> Iterator[Item]:
        for part in range(batch.parts):
            if ItemState.WAITING in states[part * PART : (part + 1) * PART]:
                for item in self._documents.part(batch.tenant, batch.id, part):
                    if states[item.index] is ItemState.WAITING:
                        yield item

    def _admit_one(self, batch: Batch, now: float, item: Item) -> ItemState:
        if item.request is None:
            return ItemState.ERASED
        job_id = batch.job_id(item.index)
        if over := self._jobs.outcome(batch.tenant, job_id):  # admitted by a scheduler that died since
            return ItemState.of(over)
        accepted = Accepted(
            tenant=batch.tenant,
            job_id=job_id,
            created_at=now,
            request_id=batch.request_id,
            traceparent=batch.traceparent,
            batch_id=batch.id,
            work=item.work,
            model=item.model,
            format=item.format,
            request=item.request,
        )
        try:
            self._jobs.admit(accepted)
        except SubjectNotFound:
            return ItemState.ERASED
        return ItemState.QUEUED

    def _withdraw(self, batch: Batch, states: list[ItemState]) -> int:
        """Take out what is queued, ask what runs to stop, and leave the rest undone: nothing is admitted."""
        for index, state in enumerate(states):
            if state is ItemState.WAITING:
                states[index] = ItemState.CANCELED
            elif state in ADMITTED and time.monotonic() < self._until:
                try:
                    states[index] = ItemState.of(self._jobs.cancel(batch.tenant, batch.job_id(index)))
                except (JobOver, JobNotFound):
                    continue
        return 0

    def _drop_abandoned(self, tenant: str, batch_id: str) -> None:
        """Remove what was left by a process that died while a batch was being sent."""
        if time.time() - time_of(batch_id) > _ABANDONED_SECONDS:
            self._documents.discard(tenant, batch_id)
