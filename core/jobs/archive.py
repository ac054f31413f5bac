"""Jobs in the object store: what was accepted, how it ended, what was made. Objects under the keys of storage/keys.py.

Which jobs a tenant has, newest first, is read from the names of empty objects; no record is opened to find them:

{tenant}/job-list/{when}.{kind}.{state}

`when` is the job's id turned around digit by digit, so that the store's order begins with the newest job; its first
four digits are a folder, one for about nine hours. `state` is `open` until the job is over. Who writes the final name
removes the open one after that: for a moment there may be both, and the final one counts. The store holds this list and
not Redis: it must be whole after Redis came back empty.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from core.errors import ObjectNotFound
from core.ids import ALPHABET, new_id
from core.records import Job, JobKind, JobState, Record, Request
from core.storage import Store, keys

RecordT = TypeVar("RecordT", bound=Record)
_OPEN = "open"
_REVERSED = str.maketrans(ALPHABET, ALPHABET[::-1])
_FOLDER = 4


class Accepted(Record):
    """An accepted request, and what is needed to queue its job again."""

    tenant: str
    job_id: str
    created_at: float
    request_id: str = ""
    batch_id: str = ""
    request: Request

    @classmethod
    def now(cls, tenant: str, request: Request, *, request_id: str, job_id: str = "") -> Accepted:
        """A request that is accepted at this moment, with a new job id unless one is given."""
        job_id = job_id or new_id("job")
        return cls(tenant=tenant, job_id=job_id, created_at=time.time(), request_id=request_id, request=request)

    def as_job(self) -> Job:
        """The record of the job before anything has happened to it."""
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


@dataclass(frozen=True)
class Entry:
    """A job on the list: `state` is None while the job is not over, or was not when the name was written."""

    job_id: str
    kind: JobKind
    state: JobState | None


class JobArchive:
    """Jobs in the store. Every method raises StoreUnavailable."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def put_accepted(self, accepted: Accepted) -> None:
        """Make the request durable, note that its subjects have the job, and put it on the list."""
        self._put(keys.pending(accepted.tenant, accepted.job_id), accepted)
        for subject_id in accepted.request.subject_ids:
            self._store.put(f"{keys.markers(accepted.tenant, subject_id)}{accepted.job_id}", b"")
        self.enlist(accepted.as_job())

    def accepted(self, tenant: str, job_id: str) -> Accepted | None:
        """The request of a job that is not over, or None."""
        return self._get(keys.pending(tenant, job_id), Accepted)

    def drop_accepted(self, tenant: str, job_id: str) -> None:
        """Forget the request: its job is over, or was not accepted after all."""
        self._store.delete(keys.pending(tenant, job_id))

    def all_accepted(self) -> Iterator[tuple[str, str]]:
        """(tenant, job id) of everything that was accepted and is not over."""
        for key in self._store.list(keys.PENDING):
            _, tenant, name = key.split("/")
            yield tenant, name.removesuffix(".json")

    def open_ids(self, tenant: str) -> list[str]:
        """The ids of a tenant's jobs that are not over, oldest first."""
        prefix = f"{keys.PENDING}{tenant}/"
        return [key.removeprefix(prefix).removesuffix(".json") for key in self._store.list(prefix)]

    def put_outcome(self, job: Job) -> Job:
        """Write down how the job ended, once: a second end does not replace the first. Returns the one that counts."""
        first = self.outcome(job.tenant, job.id)
        if first is None:
            self._put(keys.outcome(job.tenant, job.id), job)
        self.enlist(first or job)
        return first or job

    def outcome(self, tenant: str, job_id: str) -> Job | None:
        """How the job ended, or None."""
        return self._get(keys.outcome(tenant, job_id), Job)

    def unmark(self, tenant: str, subject_ids: Sequence[str], job_id: str) -> None:
        """Take the job off its subjects."""
        for subject_id in subject_ids:
            self._store.delete(f"{keys.markers(tenant, subject_id)}{job_id}")

    def unmark_all(self, tenant: str, subject_id: str) -> None:
        """Take all its jobs off a subject."""
        self._store.delete_prefix(keys.markers(tenant, subject_id))

    def is_marked(self, job: Job) -> bool:
        """Whether the job belongs to any of its subjects, as all that were accepted do."""
        return any(self._store.exists(f"{keys.markers(job.tenant, each)}{job.id}") for each in job.subject_ids)

    def job_ids(self, tenant: str, subject_id: str) -> list[str]:
        """The jobs that belong to the subject, oldest first."""
        prefix = keys.markers(tenant, subject_id)
        return [key.removeprefix(prefix) for key in self._store.list(prefix)]

    def is_at_rest(self, tenant: str, job_id: str) -> bool:
        """Whether no worker can be left that writes to the job: its first attempt has succeeded and is settled."""
        job = self.outcome(tenant, job_id)
        once = job is not None and job.state is JobState.SUCCEEDED and job.attempt == 1
        return once and not self._store.exists(keys.pending(tenant, job_id))

    def put_attempt(self, job: Job, name: str, data: bytes, *, content_type: str) -> str:
        """Store what an attempt made, under a key that no other attempt uses. Returns the key."""
        key = f"{keys.attempt(job.tenant, job.id, job.fence)}{name}"
        self._store.put(key, data, content_type=content_type)
        return key

    def read(self, key: str) -> bytes:
        """Something that a job made. Raises ObjectNotFound."""
        return self._store.get(key)

    def drop_attempt(self, tenant: str, job_id: str, fence: int) -> None:
        """Remove what an attempt made that came to nothing."""
        self._store.delete_prefix(keys.attempt(tenant, job_id, fence))

    def drop_other_attempts(self, job: Job) -> None:
        """Remove what the job made in attempts that do not count, which is all of it unless it succeeded."""
        keep = keys.attempt(job.tenant, job.id, job.fence) if job.state is JobState.SUCCEEDED else None
        for key in self._store.list(keys.job(job.tenant, job.id)):
            if key != keys.outcome(job.tenant, job.id) and not (keep and key.startswith(keep)):
                self._store.delete(key)

    def erase(self, tenant: str, job_id: str) -> None:
        """Remove a job and everything it made."""
        self._store.delete(keys.pending(tenant, job_id))
        self._store.delete_prefix(keys.job(tenant, job_id))
        self.unlist(tenant, job_id)

    def enlist(self, job: Job) -> None:
        """Put the job on the list, or write down there how it ended."""
        name = f"{_list_name(job.tenant, job.id)}{job.kind}."
        if not job.state.is_final:
            self._store.put(name + _OPEN, b"")
            return
        self._store.put(name + job.state.value, b"")
        self._store.delete(name + _OPEN)

    def unlist(self, tenant: str, job_id: str) -> None:
        """Take the job off the list."""
        for key in list(self._store.list(_list_name(tenant, job_id))):
            self._store.delete(key)

    def newest_first(self, tenant: str, *, after: str = "") -> Iterator[Entry]:
        """The tenant's jobs; those that are older than the job `after`, when it is given."""
        prefix = keys.job_list(tenant)
        last: Entry | None = None
        # "/" is the character after ".": all names of `after` come before it.
        start = f"{_list_name(tenant, after).removesuffix('.')}/" if after else ""
        for key in self._store.list(prefix, after=start):
            entry = _read_name(key.removeprefix(prefix))
            if last and last.job_id != entry.job_id:
                yield last
            if last is None or last.job_id != entry.job_id or last.state is None:
                last = entry
        if last:
            yield last

    def ping(self) -> None:
        """Raises StoreUnavailable when the store cannot be reached."""
        self._store.ping()

    def _put(self, key: str, record: Record) -> None:
        self._store.put(key, record.model_dump_json().encode(), content_type="application/json")

    def _get(self, key: str, kind: type[RecordT]) -> RecordT | None:
        try:
            return kind.model_validate_json(self._store.get(key))
        except ObjectNotFound:
            return None


def _list_name(tenant: str, job_id: str) -> str:
    """The beginning of the names of a job."""
    when = job_id.removeprefix("job_").translate(_REVERSED)
    return f"{keys.job_list(tenant)}{when[:_FOLDER]}/{when[_FOLDER:]}."


def _read_name(name: str) -> Entry:
    when, kind, state = name.replace("/", "", 1).split(".")
    final = None if state == _OPEN else JobState(state)
    return Entry(f"job_{when.translate(_REVERSED)}", JobKind(kind), final)
