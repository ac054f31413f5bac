"""Batches: many generations, accepted at once and done when nothing else waits.

A batch is its items, a hundred in a part, and a tally: a letter for each item that says how it stands. What an item
needs to run is in its part; once it is admitted to the queue (feeding.py) it is a job like any other, whose id follows
from the batch's id and the item's number. So everything can be done again by anybody: Redis holds nothing of a batch.
The scheduler alone writes the tally and the parts, one scheduler at a time.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby, islice
from typing import TypeVar

from core.errors import BatchNotFound, BatchOver, ObjectNotFound, SubjectNotFound
from core.ids import derived_id, is_id, time_of
from core.jobs import pages
from core.jobs.service import Jobs
from core.records import BatchStatus, Failure, GenerateRequest, ItemStatus, Job, JobState, Record
from core.storage import keys

PART = 100
"""Items in a part: what is read and written at once."""
ERASED = Failure(code=SubjectNotFound.code, detail="The subject was deleted.")
RecordT = TypeVar("RecordT", bound=Record)


class Letter(StrEnum):
    """How an item stands, in a tally."""

    WAITING = "w"
    """It has not been admitted to the queue."""
    QUEUED = "q"
    RUNNING = "r"
    SUCCEEDED = "s"
    FAILED = "f"
    CANCELED = "c"
    INVALID = "i"
    ERASED = "e"
    """Its subject was deleted, and it was blanked."""


STATUS = {
    Letter.WAITING: ItemStatus.QUEUED,
    Letter.QUEUED: ItemStatus.QUEUED,
    Letter.RUNNING: ItemStatus.RUNNING,
    Letter.SUCCEEDED: ItemStatus.SUCCEEDED,
    Letter.FAILED: ItemStatus.FAILED,
    Letter.CANCELED: ItemStatus.CANCELED,
    Letter.INVALID: ItemStatus.INVALID,
    Letter.ERASED: ItemStatus.FAILED,
}
LETTER = {
    JobState.QUEUED: Letter.QUEUED,
    JobState.RUNNING: Letter.RUNNING,
    JobState.SUCCEEDED: Letter.SUCCEEDED,
    JobState.FAILED: Letter.FAILED,
    JobState.CANCELED: Letter.CANCELED,
}
ADMITTED = (Letter.QUEUED, Letter.RUNNING)
"""In the queue, or being done."""


class ItemError(Failure):
    """Why an item could not be accepted: as Failure, with each field that is wrong and why."""

    fields: tuple[tuple[str | None, str], ...] = ()


class Item(Record):
    """One item: its number, the line it stood in, the caller's own name for it, and what it asks for or what is wrong.

    One with neither was blanked: its subject was deleted.
    """

    index: int
    line: int | None = None
    custom_id: str | None = None
    request: GenerateRequest | None = None
    error: ItemError | None = None


class Batch(Record):
    """A batch as it was accepted."""

    id: str
    tenant: str
    created_at: float
    total: int
    request_id: str = ""

    @property
    def parts(self) -> int:
        """How many parts it has."""
        return -(-self.total // PART)

    def job_id(self, index: int) -> str:
        """The job of an item: always the same, in the items' order, and as hard to guess as the batch's own id."""
        return derived_id("job", time_of(self.id) + (index + 0.5) / 1000, f"{self.id} {index}")


class Tally(Record):
    """How all items of a batch stand, a Letter each, when the last one was over, and whether webhooks know of it."""

    letters: str
    finished_at: float | None = None
    told: bool = False

    @property
    def counts(self) -> dict[ItemStatus, int]:
        """How many items stand how."""
        found = Counter(self.letters)
        counts = dict.fromkeys(ItemStatus, 0)
        for letter, status in STATUS.items():
            counts[status] += found[letter]
        return counts


class Deleted(Record):
    """What is known of a batch that was deleted: when, and the jobs that somebody who was late may still write to."""

    at: float
    late: tuple[str, ...] = ()


@dataclass(frozen=True)
class Standing:
    """A batch as it stands."""

    batch: Batch
    tally: Tally
    is_canceled: bool

    @property
    def status(self) -> BatchStatus:
        """In a word."""
        if self.tally.finished_at is None:
            return BatchStatus.CANCELING if self.is_canceled else BatchStatus.RUNNING
        return BatchStatus.CANCELED if self.is_canceled else BatchStatus.COMPLETED


@dataclass(frozen=True)
class ItemStanding:
    """An item as it stands: `job` is its job, once there is one."""

    item: Item
    status: ItemStatus
    job: Job | None = None

    @property
    def error(self) -> Failure | None:
        """Why it has no pictures."""
        if self.item.error or self.status is not ItemStatus.FAILED:
            return self.item.error
        return self.job.error if self.job and self.job.error else ERASED


class Batches:
    """The batches at the desk. Raises StoreUnavailable; BrokerUnavailable only where it is about jobs."""

    def __init__(self, jobs: Jobs) -> None:
        self.jobs = jobs
        self.store = jobs.archive.store

    def read(self, tenant: str, batch_id: str) -> Standing:
        """How the batch stands. Raises BatchNotFound, also while it is being deleted."""
        batch = self.find(tenant, batch_id) if is_id(batch_id, "bat") else None
        if batch is None or self.store.exists(f"{keys.DELETED_BATCHES}{tenant}/{batch_id}"):
            raise BatchNotFound(f"There is no batch {batch_id[:40]}.")
        return Standing(batch, self.tally(batch), self.is_canceled(batch))

    def page(self, tenant: str, *, limit: int, after: str = "") -> tuple[list[Standing], str | None]:
        """The newest batches, at most `limit`, older than the batch `after`; and the last id when there are more."""
        prefix = keys.batches(tenant)
        names = [key.removeprefix(prefix).removesuffix(".json") for key in self.store.list(prefix)]
        ids = [name for name in reversed(names) if not after or name < after]
        found = []
        for batch_id in ids[:limit]:
            try:
                found.append(self.read(tenant, batch_id))
            except BatchNotFound:
                continue
        return found, ids[limit - 1] if len(ids) > limit else None

    def items(self, standing: Standing, indices: Sequence[int]) -> Iterator[ItemStanding]:
        """How these items stand; `indices` ascend. A part at a time is in memory."""
        for part, some in groupby(indices, key=lambda index: index // PART):
            yield from self._look(standing, part, set(some))

    def pick(self, standing: Standing, *, status: ItemStatus | None, start: int, limit: int) -> list[int]:
        """The numbers of the next items that stand like this by the tally, from `start` on."""
        letters = enumerate(standing.tally.letters[start:], start)
        return list(islice((index for index, letter in letters if status in (None, STATUS[Letter(letter)])), limit))

    def cancel(self, tenant: str, batch_id: str) -> Standing:
        """Do nothing more of it: the scheduler takes out what is queued and stops what runs. Raises BatchOver."""
        standing = self.read(tenant, batch_id)
        if standing.tally.finished_at is not None:
            raise BatchOver(f"Batch {batch_id} is already over.")
        self.store.put(f"{keys.batch_items(tenant, batch_id)}canceled", b"")
        return Standing(standing.batch, standing.tally, True)

    def delete(self, tenant: str, batch_id: str) -> None:
        """From here on it is not there; the scheduler erases its items, its jobs and their pictures."""
        self.read(tenant, batch_id)
        self.put_deleted(tenant, batch_id, Deleted(at=time.time()))

    # What the scheduler needs.

    def find(self, tenant: str, batch_id: str) -> Batch | None:
        """The batch, or None; also one that is being deleted."""
        return self._get(keys.batch(tenant, batch_id), Batch)

    def tally(self, batch: Batch) -> Tally:
        """How its items stand. Raises BatchNotFound: it was erased meanwhile."""
        tally = self._get(f"{keys.batch_items(batch.tenant, batch.id)}tally.json", Tally)
        if tally is None:
            raise BatchNotFound(f"There is no batch {batch.id}.")
        return tally

    def put_tally(self, tenant: str, batch_id: str, tally: Tally) -> None:
        """Write down how its items stand."""
        self.store.put(f"{keys.batch_items(tenant, batch_id)}tally.json", tally.model_dump_json().encode())

    def is_canceled(self, batch: Batch) -> bool:
        """Whether nothing more of it is to be done."""
        return self.store.exists(f"{keys.batch_items(batch.tenant, batch.id)}canceled")

    def part(self, tenant: str, batch_id: str, part: int) -> list[Item]:
        """The items of a part; none when it was erased."""
        try:
            lines = self.store.get(_part(tenant, batch_id, part)).splitlines()
        except ObjectNotFound:
            return []
        return [Item.model_validate_json(line) for line in lines]

    def put_part(self, tenant: str, batch_id: str, part: int, items: Sequence[Item]) -> None:
        """Write a part."""
        lines = "".join(f"{item.model_dump_json()}\n" for item in items)
        self.store.put(_part(tenant, batch_id, part), lines.encode(), content_type="application/jsonl")

    def deleted(self, tenant: str, batch_id: str) -> Deleted:
        """What is known of a batch that was deleted."""
        return Deleted.model_validate_json(self.store.get(f"{keys.DELETED_BATCHES}{tenant}/{batch_id}"))

    def put_deleted(self, tenant: str, batch_id: str, deleted: Deleted) -> None:
        """Write down that it is deleted."""
        self.store.put(f"{keys.DELETED_BATCHES}{tenant}/{batch_id}", deleted.model_dump_json().encode())

    def _look(self, standing: Standing, part: int, wanted: set[int]) -> Iterator[ItemStanding]:
        batch, letters = standing.batch, standing.tally.letters
        items = [item for item in self.part(batch.tenant, batch.id, part) if item.index in wanted]
        have_jobs = [item.index for item in items if item.request and letters[item.index] != Letter.WAITING]
        archive, ledger = self.jobs.archive, self.jobs.ledger
        found = pages.read(archive, ledger, batch.tenant, [batch.job_id(index) for index in have_jobs])
        jobs = {job.id: job for job, _ in found}
        for item in items:
            job = jobs.get(batch.job_id(item.index))
            yield ItemStanding(item, _status(item, Letter(letters[item.index]), job), job)

    def _get(self, key: str, kind: type[RecordT]) -> RecordT | None:
        try:
            return kind.model_validate_json(self.store.get(key))
        except ObjectNotFound:
            return None


def _status(item: Item, letter: Letter, job: Job | None) -> ItemStatus:
    """How an item stands now: the tally is a moment old."""
    if job:
        return STATUS[LETTER[job.state]]
    if item.request is None:
        return ItemStatus.INVALID if item.error else ItemStatus.FAILED
    return STATUS[letter] if letter in (Letter.WAITING, Letter.CANCELED) else ItemStatus.FAILED


def _part(tenant: str, batch_id: str, part: int) -> str:
    return f"{keys.batch_items(tenant, batch_id)}{part:03}.jsonl"
