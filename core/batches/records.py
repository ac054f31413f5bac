"""What a batch is: its items, a hundred in a part, and the states of all of them, a character each, in one record."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from core.errors import SubjectNotFound
from core.ids import derived_id, time_of
from core.records import BatchStatus, Failure, GenerateRequest, ItemStatus, Job, JobState, Record

PART = 100
"""Items in a part: what is read and written at once."""
ERASED = Failure(code=SubjectNotFound.code, detail="The subject was deleted.")


class ItemState(StrEnum):
    """The state of an item, as it is stored."""

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

    @classmethod
    def of(cls, job: Job) -> ItemState:
        """The state of an item that has this job."""
        return _OF_JOB[job.state]

    @property
    def status(self) -> ItemStatus:
        """The same for the outside."""
        return _STATUS[self]


_OF_JOB = {
    JobState.QUEUED: ItemState.QUEUED,
    JobState.RUNNING: ItemState.RUNNING,
    JobState.SUCCEEDED: ItemState.SUCCEEDED,
    JobState.FAILED: ItemState.FAILED,
    JobState.CANCELED: ItemState.CANCELED,
}
_STATUS = {
    ItemState.WAITING: ItemStatus.QUEUED,
    ItemState.QUEUED: ItemStatus.QUEUED,
    ItemState.RUNNING: ItemStatus.RUNNING,
    ItemState.SUCCEEDED: ItemStatus.SUCCEEDED,
    ItemState.FAILED: ItemStatus.FAILED,
    ItemState.CANCELED: ItemStatus.CANCELED,
    ItemState.INVALID: ItemStatus.INVALID,
    ItemState.ERASED: ItemStatus.FAILED,
}
ADMITTED = (ItemState.QUEUED, ItemState.RUNNING)
"""In the queue, or running."""


class ItemError(Failure):
    """Why an item could not be accepted: as Failure, with each field that is wrong and why."""

    fields: tuple[tuple[str | None, str], ...] = ()


class ItemWarning(Record):
    """What has no effect in an item that was accepted; `words` are the pieces of the field that it is about."""

    code: str
    message: str
    field: str
    words: tuple[str, ...] = ()


class Item(Record):
    """One item: its number, its line, the caller's own name for it, and its request or what is wrong with it.

    One with neither was blanked: its subject was deleted.
    """

    index: int
    line: int | None = None
    custom_id: str | None = None
    request: GenerateRequest | None = None
    error: ItemError | None = None
    warnings: tuple[ItemWarning, ...] = ()
    work: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    model: str = ""
    format: int = 0
    """As in Accepted."""

    @property
    def subject_ids(self) -> tuple[str, ...]:
        """The subjects that it names."""
        return self.request.subject_ids if self.request else ()


class Batch(Record):
    """A batch as it was accepted."""

    id: str
    tenant: str
    created_at: float
    total: int
    request_id: str = ""
    traceparent: str = ""

    @property
    def parts(self) -> int:
        """How many parts it has."""
        return -(-self.total // PART)

    def job_id(self, index: int) -> str:
        """The job of an item: always the same, in the items' order, and as hard to guess as the batch's own id."""
        return derived_id("job", time_of(self.id) + (index + 0.5) / 1000, f"{self.id} {index}")


class ItemStates(Record):
    """The states of all items of a batch, when the last one was over, and whether webhooks were notified of that."""

    states: str = Field(alias="letters")
    """An ItemState for each item, in their order."""
    finished_at: float | None = None
    notified: bool = Field(default=False, alias="told")

    @property
    def counts(self) -> dict[ItemStatus, int]:
        """How many items have each status."""
        found = Counter(self.states)
        counts = dict.fromkeys(ItemStatus, 0)
        for state in ItemState:
            counts[state.status] += found[state]
        return counts


class DeletedBatch(Record):
    """What is known of a batch that was deleted: when, and the jobs that a worker may still write to."""

    at: float
    late: tuple[str, ...] = ()


@dataclass(frozen=True)
class BatchState:
    """A batch with the states of its items."""

    batch: Batch
    items: ItemStates
    is_canceled: bool

    @property
    def is_over(self) -> bool:
        """Whether all its items are over."""
        return self.items.finished_at is not None

    @property
    def status(self) -> BatchStatus:
        """The status that its caller sees."""
        if not self.is_over:
            return BatchStatus.CANCELING if self.is_canceled else BatchStatus.RUNNING
        return BatchStatus.CANCELED if self.is_canceled else BatchStatus.COMPLETED


@dataclass(frozen=True)
class ItemWithJob:
    """An item, its status, and its job once there is one."""

    item: Item
    status: ItemStatus
    job: Job | None = None

    @property
    def error(self) -> Failure | None:
        """Why it has no pictures."""
        if self.item.error or self.status is not ItemStatus.FAILED:
            return self.item.error
        return self.job.error if self.job and self.job.error else ERASED


def status_of(item: Item, state: ItemState, job: Job | None) -> ItemStatus:
    """The status of an item now: its stored `state` is a moment old, its job is not."""
    if job:
        return ItemState.of(job).status
    if item.request is None:
        return ItemStatus.INVALID if item.error else ItemStatus.FAILED
    return state.status if state in (ItemState.WAITING, ItemState.CANCELED) else ItemStatus.FAILED
