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
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from pydantic import Field, ModelWrapValidatorHandler, model_validator

from core import tracing
from core.errors import ObjectNotFound
from core.ids import ALPHABET, new_id, time_of
from core.jobs.demand import FORMAT, Demand, left_out
from core.records import GenerateRequest, GenerateResult, GenerationOptions, Job, JobKind, JobState, Record, Request
from core.storage import Store, keys
from core.storage.stored import dump, load

RecordT = TypeVar("RecordT", bound=Record)
_OPEN = "open"
_REVERSED = str.maketrans(ALPHABET, ALPHABET[::-1])
_FOLDER = 4
_AS_ACCEPTED = ("tenant", "id", "kind", "subject_id", "blended_with", "batch_id", "request_id")


class Accepted(Record):
    """An accepted request, and what is needed to queue its job again."""

    tenant: str
    job_id: str
    created_at: float
    request_id: str = ""
    traceparent: str = ""
    batch_id: str = ""
    work: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """In pictures; 0: not known."""
    model: str = ""
    """The fingerprint of the base model that must run it; empty: any."""
    format: int = 0
    """The format of the request (core/jobs/demand.py); 0 in requests of earlier versions."""
    refines: bool = False
    """Whether its subject has weights already."""
    is_newer: bool = Field(default=False, exclude=True)
    """Whether the request has fields, with values, that this version would leave out."""
    request: Request

    @model_validator(mode="wrap")
    @classmethod
    def _see_newer(cls, stored: Any, read: ModelWrapValidatorHandler[Accepted]) -> Accepted:
        accepted = read(stored)
        request = stored.get("request") if isinstance(stored, dict) else None
        if isinstance(request, dict) and left_out(request, accepted.request.model_dump(mode="json")):
            return accepted.model_copy(update={"is_newer": True})
        return accepted

    @classmethod
    def now(
        cls,
        tenant: str,
        request: Request,
        *,
        request_id: str,
        job_id: str = "",
        model: str | None = None,
        refines: bool = False,
    ) -> Accepted:
        """A request that is accepted at this moment, in the present trace, with a new job id unless one is given."""
        return cls(
            tenant=tenant,
            job_id=job_id or new_id("job"),
            created_at=time.time(),
            request_id=request_id,
            traceparent=tracing.current(),
            model=model or "",
            format=FORMAT,
            refines=refines,
            request=request,
        )

    @property
    def demand(self) -> Demand:
        """What the ledger has to know of it."""
        request, common = self.request, Demand(model=self.model, format=self.format, refines=self.refines)
        if isinstance(request, GenerateRequest):
            return replace(common, group=request.batch_group, rows=request.n, work=self.work or request.n)
        return replace(common, work=self.work or 1.0)

    def about(self, job: Job) -> Job:
        """The job as Redis tells of it, with what was accepted: whom it is about, its kind, its batch."""
        asked, result = self.as_job(), job.result
        if isinstance(result, GenerateResult) and isinstance(self.request, GenerateRequest):
            result = result.model_copy(update={"options": self.request.options})
        return job.model_copy(update={**{name: getattr(asked, name) for name in _AS_ACCEPTED}, "result": result})

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
        self.mark(accepted)

    def mark(self, accepted: Accepted) -> None:
        """Note that the request's subjects have the job, so that it dies with them, and put it on the list."""
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

    def unreadable_requests(self) -> Iterator[tuple[str, str]]:
        """(tenant, job id) of the requests that were set aside because they cannot be read."""
        prefix = keys.UNREADABLE + keys.PENDING
        for key in self._store.list(prefix):
            tenant, _, name = key.removeprefix(prefix).partition("/")
            yield tenant, name.removesuffix(".json")

    def listed(self, tenant: str, job_id: str) -> Job | None:
        """What the list and the markers of subjects tell of a job: its kind and one of its subjects; None: not enough.

        Reads the names of all the tenant's markers.
        """
        names = self._store.list(_list_name(tenant, job_id))
        kind = next((_read_name(name.removeprefix(keys.job_list(tenant))).kind for name in names), None)
        markers = (key.split("/") for key in self._store.list(f"{tenant}/subject-jobs/"))
        subject_id = next((parts[2] for parts in markers if parts[3] == job_id), None)
        if kind is None or subject_id is None:
            return None
        state, at = JobState.QUEUED, time_of(job_id)
        return Job(id=job_id, tenant=tenant, kind=kind, subject_id=subject_id, state=state, created_at=at)

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
        job = self._get(keys.outcome(tenant, job_id), Job)
        return job and job.model_copy(update={"tenant": tenant, "id": job_id})

    def options(self, job: Job) -> GenerationOptions | None:
        """What was asked for in a job that generated, which Redis does not know; None where it was not kept."""
        over = self.outcome(job.tenant, job.id)
        return over.result.options if over and isinstance(over.result, GenerateResult) else None

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

    def picture(self, job: Job, image_id: str) -> bytes:
        """A picture that the job made, in the attempt that counts. Raises ObjectNotFound."""
        return self._store.get(keys.picture(job.tenant, image_id, job.fence))

    def drop_attempt(self, tenant: str, job_id: str, fence: int) -> None:
        """Remove what an attempt made that came to nothing."""
        self._store.delete_prefix(keys.attempt(tenant, job_id, fence))

    def drop_other_attempts(self, job: Job) -> None:
        """Remove what the job made in attempts that do not count, which is all of it unless it succeeded."""
        keep = keys.attempt(job.tenant, job.id, job.fence) if job.state is JobState.SUCCEEDED else None

        def is_kept(key: str) -> bool:
            is_record = key == keys.outcome(job.tenant, job.id) or keys.is_aside(key)
            return is_record or (keep is not None and key.startswith(keep))

        made = self._store.list(keys.job(job.tenant, job.id))
        self._store.delete_all([key for key in made if not is_kept(key)])

    def erase(self, tenant: str, job_ids: Sequence[str]) -> None:
        """Remove jobs and everything they made. Reads the names of what they made, and all else goes unread."""
        gone: list[str] = []
        for job_id in job_ids:
            records = (keys.pending(tenant, job_id), keys.outcome(tenant, job_id))
            gone += [*self._store.list(keys.job(tenant, job_id)), *(keys.UNREADABLE + key for key in records)]
            gone += [records[0], *_list_names(tenant, job_id)]
        self._store.delete_all(gone)

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
        self._store.delete_all(list(self._store.list(_list_name(tenant, job_id))))

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
        self._store.put(key, dump(record), content_type="application/json")

    def _get(self, key: str, kind: type[RecordT]) -> RecordT | None:
        try:
            return load(self._store, key, kind)
        except ObjectNotFound:
            return None


def _list_name(tenant: str, job_id: str) -> str:
    """The beginning of the names of a job."""
    when = job_id.removeprefix("job_").translate(_REVERSED)
    return f"{keys.job_list(tenant)}{when[:_FOLDER]}/{when[_FOLDER:]}."


def _list_names(tenant: str, job_id: str) -> list[str]:
    """All names that a job may have on the list."""
    states = [_OPEN, *(state.value for state in JobState if state.is_final)]
    return [f"{_list_name(tenant, job_id)}{kind}.{state}" for kind in JobKind for state in states]


def _read_name(name: str) -> Entry:
    when, kind, state = name.replace("/", "", 1).split(".")
    final = None if state == _OPEN else JobState(state)
    return Entry(f"job_{when.translate(_REVERSED)}", JobKind(kind), final)
