"""Jobs: accepted, read, canceled, and settled when they are over, in the store and in Redis.

Accepted is durable: the request is in the store before anything is queued. What happens beside a job when it ends (its
subject's document, the usage, the webhooks) is not known here; `core/services.py` hands it in. Every method may raise
StoreUnavailable and BrokerUnavailable (both bounded in time), besides what it names.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from core.errors import (
    BrokerUnavailable,
    HyperDreamBoothError,
    ImageNotFound,
    JobNotFound,
    JobOver,
    ObjectNotFound,
    QueueFull,
    ServiceBusy,
    SubjectNotFound,
)
from core.ids import is_id, is_test
from core.jobs import pages, pictures
from core.jobs.archive import Accepted, JobArchive
from core.jobs.ledger import TESTS, Ledger
from core.jobs.pages import JobFilter, Page
from core.jobs.pictures import PictureFilter, PicturePage
from core.jobs.redis_records import QueuedJob
from core.log import log_context
from core.queue.notifications import Notifier
from core.records import GenerateResult, Job, JobKind, JobState, Request
from core.storage import keys
from core.tracing import trace_id

_log = logging.getLogger(__name__)


class JobSubjects(Protocol):
    """What jobs have to know of the subjects they are about; `core.subjects.job_effects` tells it."""

    def check(self, tenant: str, subject_ids: Iterable[str]) -> None:
        """Raises SubjectNotFound when one of them is not there, or is being deleted."""

    def is_deleted(self, job: Job) -> bool:
        """Whether one of the job's subjects was deleted."""

    def erase_deleted(self, job: Job) -> bool:
        """Whether one of the job's subjects was deleted; then all that is left of it is erased, this job as well."""

    def job_ended(self, job: Job) -> None:
        """Note in the subject what its job has given."""


class JobService:
    """The jobs of all tenants."""

    def __init__(
        self,
        archive: JobArchive,
        ledger: Ledger,
        notifier: Notifier,
        subjects: JobSubjects,
        on_end: Sequence[Callable[[Job], None]] = (),
        work_of: Callable[[Request], float] = lambda _: 0.0,
    ) -> None:
        """`on_end` is called with each job that is over, in this order, and again when a process died in between.

        `work_of` tells the work of a request, by which tenants take turns; 0: not known.
        """
        self._archive = archive
        self._ledger = ledger
        self._notifier = notifier
        self._subjects = subjects
        self._on_end = on_end
        self._work_of = work_of

    def accept(self, accepted: Accepted, store_all: Callable[[], None], undo: Callable[[], None] = lambda: None) -> Job:
        """Make the request durable, store what belongs to it, queue it and notify a worker.

        When one step fails, all of it is undone. `store_all` checks once more that the subjects are there: a deletion
        that began meanwhile either finds the job, or is seen by it. Raises QueueFull, ServiceBusy, and what
        `store_all` raises.
        """
        accepted = accepted.model_copy(update={"work": self._work_of(accepted.request)})
        try:
            self._archive.put_accepted(accepted)
            store_all()
            return self._enqueue(accepted, bounded=True)
        except HyperDreamBoothError:
            with contextlib.suppress(HyperDreamBoothError):
                undo()
                self._drop(accepted)
            raise

    def admit(self, item: Accepted) -> None:
        """Accept an item of a batch, however many jobs wait; nothing new when it is accepted already.

        Nothing is undone when this fails half-way: it may be the second time, and the job may be running. Only when
        a subject is no longer there nothing stays stored: raises SubjectNotFound.
        """
        self._archive.put_accepted(item)
        try:
            self._subjects.check(item.tenant, item.request.subject_ids)
        except SubjectNotFound:
            self._archive.erase(item.tenant, [item.job_id])
            self._archive.unmark(item.tenant, item.request.subject_ids, item.job_id)
            raise
        self._enqueue(item, bounded=False)

    def restore(self, tenant: str, job_id: str) -> None:
        """Queue what was accepted and Redis does not know, and notify a worker; nothing when it is not pending."""
        accepted = self._archive.accepted(tenant, job_id)
        if accepted is None:
            return
        self._archive.mark(accepted)  # whoever accepted it may have died before
        try:
            self._subjects.check(tenant, accepted.request.subject_ids)
        except SubjectNotFound:  # its deletion has not seen the marks
            self.erase(tenant, {job_id: accepted.request.subject_ids})
        else:
            self._ledger.drop_unreadable(f"{tenant}/{job_id}")
            self._enqueue(accepted, bounded=False)

    def refuse_when_full(self, tenant: str, kind: JobKind) -> None:
        """Raises QueueFull, ServiceBusy. Before anything is written; this also finds out whether Redis is there."""
        limits = self._ledger.limits
        if self._ledger.waiting(tenant, kind) >= limits.queue_limit:
            raise self._full("share")
        if self._ledger.queued(TESTS if is_test(tenant) else kind) >= limits.queue_total:
            raise self._full("full")

    def get(self, tenant: str, job_id: str) -> Job:
        """The job's record: from Redis while it is known there, then from the store. Raises JobNotFound."""
        return self.get_queued(tenant, job_id).job

    def get_queued(self, tenant: str, job_id: str) -> QueuedJob:
        """The job's record with its position in the queue. Raises JobNotFound."""
        if is_id(job_id, "job"):
            for found in self.get_many(tenant, [job_id]):
                return found
        raise JobNotFound(f"There is no job {job_id[:40]}.")

    def get_many(self, tenant: str, job_ids: Sequence[str]) -> list[QueuedJob]:
        """The records of jobs, without those that are not there."""
        return pages.read(self._archive, self._ledger, tenant, job_ids)

    def get_stored(self, tenant: str, job_id: str, outage: BrokerUnavailable | None) -> QueuedJob:
        """The record of a job that Redis does not know. Raises JobNotFound; the `outage` when only Redis could tell."""
        found = pages.stored(self._archive, tenant, outage, job_id) if is_id(job_id, "job") else None
        if found is None:
            raise JobNotFound(f"There is no job {job_id[:40]}.")
        return found

    def get_live(self, tenant: str, job_id: str) -> Job | None:
        """The job's record in Redis, or None when it is not known there."""
        return self._ledger.get(f"{tenant}/{job_id}")

    def outcome(self, tenant: str, job_id: str) -> Job | None:
        """How the job ended, or None."""
        return self._archive.outcome(tenant, job_id)

    def page(self, tenant: str, matching: JobFilter, *, limit: int = 20, after: str = "") -> Page:
        """The newest jobs of those that match, at most `limit`, older than the job `after`; see pages.page."""
        return pages.page(self._archive, self._ledger, tenant, matching, limit=limit, after=after)

    def pictures(self, tenant: str, matching: PictureFilter, *, limit: int, after: str = "") -> PicturePage:
        """The newest pictures of those that match, at most `limit`, older than the picture `after`."""
        return pictures.page(self._archive, self._ledger, tenant, matching, limit=limit, after=after)

    def position(self, job: Job) -> int | None:
        """How many jobs are before this one, as turns are now; None when it is not queued."""
        return self._ledger.position(job)

    def image(self, tenant: str, image_id: str) -> bytes:
        """A picture that a job made, as PNG. Raises ImageNotFound."""
        missing = ImageNotFound(f"There is no image {image_id[:40]}.")
        if not is_id(image_id, "img"):
            raise missing
        try:
            job = self.get(tenant, keys.job_of_image(image_id))
            images = job.result.images if isinstance(job.result, GenerateResult) else ()
            if job.preview:
                images = (*job.preview.before, job.preview.image)
            if all(image.id != image_id for image in images):
                raise missing
            return self._archive.picture(job, image_id)
        except (JobNotFound, ObjectNotFound):
            raise missing from None

    def cancel(self, tenant: str, job_id: str) -> Job:
        """Ask the job to stop: at once when queued, within two steps when running. Raises JobNotFound, JobOver."""
        job = self.get(tenant, job_id)
        answer = self._ledger.cancel(job.ref)
        if answer == "unknown" and not job.state.is_final:  # accepted, but Redis lost it: it must hear of it first
            self.restore(tenant, job_id)
            answer = self._ledger.cancel(job.ref)
        if answer in ("over", "unknown"):
            raise JobOver(f"Job {job_id} is already over.")
        if answer == "canceled":
            ended = self._ledger.get(job.ref)
            if ended is None:  # emptied since: it is canceled all the same, and must not be queued again
                ended = job.model_copy(update={"state": JobState.CANCELED, "finished_at": time.time()})
            self.settle(ended)
            return ended
        return self.get(tenant, job_id)

    def settle(self, job: Job) -> None:
        """Write down how the job ended, do what follows from it, and drop what it no longer needs.

        Whoever ended the job calls this; if it dies on the way, the maintenance does, since the request is only dropped
        at the end. Repeating it changes nothing.
        """
        if accepted := self._archive.accepted(job.tenant, job.id):
            job = accepted.about(job)  # who else may be erased, or get the weights, is not for Redis to say
        if not job.state.is_final or self._subjects.erase_deleted(job):
            return
        first = self._archive.put_outcome(job)
        if first.fence != job.fence:  # it had ended before, and Redis had lost that
            self._ledger.erase([job.ref])
        self._subjects.job_ended(first)
        for note in self._on_end:
            note(first)
        self._archive.drop_other_attempts(first)
        self._ledger.expire(job.ref)  # before the last of it: a record without an end would stay
        self._archive.drop_accepted(job.tenant, job.id)
        self._subjects.erase_deleted(job)  # deleted meanwhile: what was just written goes as well

    def is_deleted(self, job: Job) -> bool:
        """Whether one of the job's subjects was deleted, and the job is to be erased with it."""
        return self._subjects.is_deleted(job)

    def erase(self, tenant: str, subjects_of: Mapping[str, Sequence[str]]) -> None:
        """Erase jobs, given with the subjects of each. First the claims, so that no worker can commit."""
        self._ledger.erase([f"{tenant}/{job_id}" for job_id in subjects_of])
        self._archive.erase(tenant, list(subjects_of))
        for job_id, subject_ids in subjects_of.items():
            self._archive.unmark(tenant, subject_ids, job_id)

    def notify(self, kind: JobKind, ref: str) -> None:
        """Let a worker know that there is work, such as this job; if that fails, the maintenance does it later.

        Jobs of test keys are looked for.
        """
        if is_test(ref):
            return
        try:
            self._notifier.notify(kind.value, ref)
        except BrokerUnavailable:
            _log.warning("notification.failed", extra={"ref": ref})

    def queue_lengths(self) -> dict[str, int]:
        """Queued jobs of each kind, queued items of batches, and running jobs: what to scale on."""
        lengths = {kind.value: self._ledger.queued(kind) for kind in JobKind}
        return lengths | {"batch": self.queued_items().total(), "running": self._ledger.running()}

    def queued_items(self) -> Counter[str]:
        """How many items of batches wait, by tenant."""
        return self._ledger.queued_items()

    def live_counts(self, tenant: str) -> dict[str, int]:
        """How many of a tenant's jobs wait, by queue, and how many are running (under "running")."""
        return self._ledger.live(tenant)

    def check(self) -> dict[str, str]:
        """Whether Redis and the store answer and take writes: "ok" or the error's code under each. Never raises."""
        return {"redis": _probe(self._ledger.ping), "store": _probe(self._archive.ping)}

    def _drop(self, accepted: Accepted) -> None:
        """Leave nothing of a request that was not accepted. The request goes last: until then the rest is found."""
        self._archive.unmark(accepted.tenant, accepted.request.subject_ids, accepted.job_id)
        self._archive.unlist(accepted.tenant, accepted.job_id)
        self._archive.drop_accepted(accepted.tenant, accepted.job_id)

    def _enqueue(self, accepted: Accepted, *, bounded: bool) -> Job:
        job = accepted.as_job()
        answer = self._ledger.accept(job, accepted.demand, bounded=bounded)
        if answer in ("full", "share"):
            raise self._full(answer)
        if answer != "silent":
            self.notify(job.kind, job.ref)
        return job

    def _full(self, answer: str) -> QueueFull | ServiceBusy:
        if answer == "full":
            return ServiceBusy("Too many jobs are waiting; try again later.", retry_after=10.0)
        limit = self._ledger.limits.queue_limit
        return QueueFull(
            f"{limit} of your jobs are waiting, as many as may: wait for one, or cancel one.", retry_after=10.0
        )


def logged(job: Job, traceparent: str = "") -> AbstractContextManager[None]:
    """What is logged inside has the ids of this job, of its request and of its trace, and no other's."""
    return log_context(job_id=job.id, request_id=job.request_id, trace_id=trace_id(traceparent))


def _probe(ping: Callable[[], None]) -> str:
    try:
        ping()
    except HyperDreamBoothError as error:
        return error.code
    return "ok"
