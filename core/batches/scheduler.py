"""The scheduler: takes items of batches to the queue, a few at a time, and writes down what becomes of them.

Any number of feeders may run; Redis gives each turn to one of them, and a turn that ends in the middle is no harm. An
item is admitted before the tally says so: whoever comes next admits it again, under the same job id, and that changes
nothing.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain, islice

from core.batches.service import ADMITTED, LETTER, PART, Batch, Batches, Deleted, Item, Letter, Tally
from core.errors import BatchNotFound, BrokerUnavailable, JobNotFound, JobOver, SubjectNotFound
from core.ids import time_of
from core.jobs import pages
from core.jobs.archive import Accepted
from core.jobs.service import Jobs
from core.storage import keys
from core.webhooks import publish

_log = logging.getLogger(__name__)
_TURN = 20
"""How many times `pass_seconds` a turn may last. Nothing is begun in its second half."""
_AT_ONCE = 8
"""Items that are admitted at the same time."""
_ABANDONED_SECONDS = 2 * 3600.0
"""Longer than a batch may take to be sent: what is not whole by then never will be."""


class BatchScheduler:
    """One look at all batches at a time: `feed()`."""

    def __init__(
        self, jobs: Jobs, *, window: int = 64, pass_seconds: float = 1.0, erase_seconds: float = 1860.0
    ) -> None:
        """`window`: how many items of a tenant may wait in the queue; `pass_seconds`: how long one look takes."""
        self.jobs = jobs
        self.batches = Batches(jobs)
        self.store = jobs.archive.store
        self.window = window
        self.pass_seconds = pass_seconds
        self.erase_seconds = erase_seconds
        self._until = 0.0

    def feed(self) -> None:
        """Admit items, write down what has become of others, erase what was deleted; nothing while another does."""
        if not self.jobs.ledger.turn("feeding", _TURN * self.pass_seconds):
            return
        self._until = time.monotonic() + self.pass_seconds
        give_up_at = time.monotonic() + _TURN * self.pass_seconds / 2
        waiting = self.jobs.ledger.queued_items()
        deleted = set(self._named(keys.DELETED_BATCHES))
        batches = sorted(self._named(keys.OPEN_BATCHES), key=lambda name: (waiting[name[0]], name[1]))
        for tenant, batch_id in batches:  # the tenant with the fewest in the queue first, of its batches the oldest
            if (tenant, batch_id) not in deleted and time.monotonic() < give_up_at:
                room = self.window - waiting[tenant]
                waiting[tenant] += self._guarded(tenant, batch_id, partial(self._advance, room=room))
        self._until = time.monotonic() + self.pass_seconds  # a time of its own: it must not wait for the others
        for tenant, batch_id in deleted:
            self._guarded(tenant, batch_id, self._erase)
        if time.monotonic() < give_up_at:  # else it may be somebody else's turn by now
            self.jobs.ledger.end_turn("feeding")

    def drop_old(self, kept_seconds: float) -> None:
        """Delete batches that are over and were made longer ago than this; 0: none."""
        self._erase_again()
        for tenant, batch_id in list(self._named(keys.OVER_BATCHES)):
            if kept_seconds and time.time() - time_of(batch_id) > kept_seconds:
                self.batches.put_deleted(tenant, batch_id, Deleted(at=time.time()))

    def _named(self, prefix: str) -> Iterator[tuple[str, str]]:
        """(tenant, batch) of the markers under a prefix."""
        for key in self.store.list(prefix):
            tenant, batch_id = key.removeprefix(prefix).split("/")
            yield tenant, batch_id

    def _guarded(self, tenant: str, batch_id: str, act: Callable[[str, str], int]) -> int:
        """One batch's trouble must not keep the others waiting: what failed comes up again."""
        try:
            return act(tenant, batch_id)
        except BrokerUnavailable:
            raise
        except Exception:  # noqa: BLE001 - whatever it is
            _log.warning("batch.schedule_failed", extra={"batch_id": batch_id}, exc_info=True)
            return 0

    def _advance(self, tenant: str, batch_id: str, *, room: int) -> int:
        """Take a batch on by at most `room` items; gives how many were admitted."""
        batch = self.batches.find(tenant, batch_id)
        if batch is None:
            self._drop_abandoned(tenant, batch_id)
            return 0
        before = self.batches.tally(batch)
        letters = list(before.letters)
        blanked = self._blank(batch, letters)
        self._look(batch, letters)
        canceled = self.batches.is_canceled(batch)
        admitted = self._withdraw(batch, letters) if canceled else self._admit(batch, letters, room)
        is_over = not {Letter.WAITING, *ADMITTED} & set(letters)
        finished_at = before.finished_at or (time.time() if is_over else None)
        after = Tally(letters="".join(letters), finished_at=finished_at, told=before.told)
        if after != before:
            self.batches.put_tally(tenant, batch_id, after)
        if finished_at and not after.told:  # with the time that is written down: told again, it is the same message
            publish.batch_ended(self.store, self.jobs.ledger.redis, tenant, batch_id, finished_at, canceled=canceled)
            self.batches.put_tally(tenant, batch_id, after.model_copy(update={"told": True}))
        for subject_id in blanked:
            self.store.delete(f"{keys.blanked(tenant, batch_id)}{subject_id}")
        if is_over:
            self._close(batch)
        return admitted

    def _blank(self, batch: Batch, letters: list[str]) -> set[str]:
        """Take out everything about subjects that were deleted; gives their ids."""
        prefix = keys.blanked(batch.tenant, batch.id)
        gone = {key.removeprefix(prefix) for key in self.store.list(prefix)}
        for part in range(batch.parts if gone else 0):
            items = self.batches.part(batch.tenant, batch.id, part)
            left = [item if not _is_about(item, gone) else Item(index=item.index) for item in items]
            for item in left:
                if not item.request and not item.error:
                    letters[item.index] = Letter.ERASED
            if left != items:
                self.batches.put_part(batch.tenant, batch.id, part, left)
        return gone

    def _look(self, batch: Batch, letters: list[str]) -> None:
        """See what has become of the items that were admitted. One without a job is being erased with its subject."""
        indices = {batch.job_id(index): index for index, letter in enumerate(letters) if letter in ADMITTED}
        for job, _ in pages.read(self.jobs.archive, self.jobs.ledger, batch.tenant, list(indices)):
            letters[indices[job.id]] = LETTER[job.state]

    def _admit(self, batch: Batch, letters: list[str], room: int) -> int:
        """Admit the next items in their order, some at once: it is mostly waiting for the store."""
        admitted = 0
        waiting = self._waiting(batch, letters)
        with ThreadPoolExecutor(_AT_ONCE) as hands:
            while admitted < room and time.monotonic() < self._until:
                items = list(islice(waiting, min(_AT_ONCE, room - admitted)))
                if not items:
                    break
                now = hands.map(partial(self._admit_one, batch, time.time()), items)
                for item, letter in zip(items, now, strict=True):
                    letters[item.index] = letter
                    admitted += letter == Letter.QUEUED
        return admitted

    def _waiting(self, batch: Batch, letters: list[str]) -> Iterator[Item]:
        for part in range(batch.parts):
            if Letter.WAITING in letters[part * PART : (part + 1) * PART]:
                for item in self.batches.part(batch.tenant, batch.id, part):
                    if letters[item.index] == Letter.WAITING:
                        yield item

    def _admit_one(self, batch: Batch, now: float, item: Item) -> Letter:
        if item.request is None:
            return Letter.ERASED
        job_id = batch.job_id(item.index)
        if over := self.jobs.archive.outcome(batch.tenant, job_id):  # admitted by a scheduler that died since
            return LETTER[over.state]
        accepted = Accepted(
            tenant=batch.tenant,
            job_id=job_id,
            created_at=now,
            request_id=batch.request_id,
            batch_id=batch.id,
            request=item.request,
        )
        try:
            self.jobs.admit(accepted)
        except SubjectNotFound:
            return Letter.ERASED
        return Letter.QUEUED

    def _withdraw(self, batch: Batch, letters: list[str]) -> int:
        """Take out what is queued, ask what runs to stop, and leave the rest undone: nothing is admitted."""
        for index, letter in enumerate(letters):
            if letter == Letter.WAITING:
                letters[index] = Letter.CANCELED
            elif letter in ADMITTED and time.monotonic() < self._until:
                try:
                    letters[index] = LETTER[self.jobs.cancel(batch.tenant, batch.job_id(index)).state]
                except (JobOver, JobNotFound):
                    continue
        return 0

    def _close(self, batch: Batch) -> None:
        name = f"{batch.tenant}/{batch.id}"
        self.store.put(f"{keys.OVER_BATCHES}{name}", b"")
        self.store.delete(f"{keys.OPEN_BATCHES}{name}")
        if next(self.store.list(keys.blanked(batch.tenant, batch.id)), None):  # opened again a moment before
            self.store.put(f"{keys.OPEN_BATCHES}{name}", b"")

    def _drop_abandoned(self, tenant: str, batch_id: str) -> None:
        """What was left by somebody who died while a batch was being sent."""
        if time.time() - time_of(batch_id) > _ABANDONED_SECONDS:
            self.store.delete_prefix(keys.batch_items(tenant, batch_id))
            self.store.delete(f"{keys.OPEN_BATCHES}{tenant}/{batch_id}")

    def _erase(self, tenant: str, batch_id: str) -> int:
        """Erase a deleted batch, as far as time allows."""
        marker = f"{keys.DELETED_BATCHES}{tenant}/{batch_id}"
        batch = self.batches.find(tenant, batch_id)
        if batch is None or self._erase_items(batch):
            self.store.put(f"{keys.LATE_BATCHES}{tenant}/{batch_id}", self.store.get(marker))
            self.store.delete(marker)
        return 0

    def _erase_again(self) -> None:
        """Erase what ran when its batch was deleted once more, when nobody can be left who writes to it."""
        for tenant, batch_id in list(self._named(keys.LATE_BATCHES)):
            marker = f"{keys.LATE_BATCHES}{tenant}/{batch_id}"
            deleted = Deleted.model_validate_json(self.store.get(marker))
            if time.time() - deleted.at > self.erase_seconds:
                self._erase_jobs(tenant, deleted.late)
                self.store.delete(marker)

    def _erase_items(self, batch: Batch) -> bool:
        """Whether all of it is erased."""
        tenant, letters = batch.tenant, self._letters(batch)
        deleted = self.batches.deleted(tenant, batch.id)
        if not deleted.late:
            late = tuple(batch.job_id(index) for index, letter in enumerate(letters) if letter in ADMITTED)
            self.batches.put_deleted(tenant, batch.id, deleted.model_copy(update={"late": late}))
        for part in range(batch.parts):
            if time.monotonic() > self._until:
                return False
            items = self.batches.part(tenant, batch.id, part)
            whose = {batch.job_id(item.index): item.request.subject_ids for item in items if item.request}
            self._erase_jobs(tenant, list(whose))
            for job_id, subject_ids in whose.items():
                self.jobs.archive.unmark(tenant, subject_ids, job_id)
            for subject_id in set(chain.from_iterable(whose.values())):
                self.store.delete(f"{keys.subject_batches(tenant, subject_id)}{batch.id}")
            self.batches.put_part(tenant, batch.id, part, ())
        self.store.delete(f"{keys.OPEN_BATCHES}{tenant}/{batch.id}")
        self.store.delete(f"{keys.OVER_BATCHES}{tenant}/{batch.id}")
        self.store.delete_prefix(keys.batch_items(tenant, batch.id))
        self.store.delete(keys.batch(tenant, batch.id))  # last of all: as long as it is there this is done again
        return True

    def _letters(self, batch: Batch) -> str:
        try:
            return self.batches.tally(batch).letters
        except BatchNotFound:  # erased by somebody who did not come to the end
            return ""

    def _erase_jobs(self, tenant: str, job_ids: Sequence[str]) -> None:
        """First the claims, so that no worker can commit; then what they made."""
        self.jobs.ledger.erase([f"{tenant}/{job_id}" for job_id in job_ids])
        for job_id in job_ids:
            self.jobs.archive.erase_job(tenant, job_id)


def _is_about(item: Item, subject_ids: set[str]) -> bool:
    return item.request is not None and not subject_ids.isdisjoint(item.request.subject_ids)
