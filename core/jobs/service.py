"""What the API does with jobs: the store and Redis together.

Everything here may raise StoreUnavailable and BrokerUnavailable (both bounded in time), besides what the methods name.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice

from core.errors import (
    BrokerUnavailable,
    HyperDreamBoothError,
    ImageNotFound,
    JobNotFound,
    JobOver,
    ObjectNotFound,
    QueueFull,
    SubjectNotFound,
    SubjectNotReady,
)
from core.ids import is_id, new_id
from core.jobs import listing, pages
from core.jobs.archive import Accepted, Archive
from core.jobs.ledger import Ledger, Limits
from core.jobs.pages import Page, Standing, Wanted
from core.jobs.settling import erase, settle
from core.queue.connection import connect
from core.queue.notifications import CeleryNotifier, Notifier, celery_app
from core.records import (
    Consent,
    GenerateRequest,
    GenerateResult,
    Job,
    JobKind,
    PersonalizeRequest,
    Receipt,
    Request,
    Subject,
    SubjectStatus,
    Weights,
    WeightsStage,
)
from core.settings import Settings
from core.storage import Store, keys, open_store

_log = logging.getLogger(__name__)


class Jobs:
    """The desk: accepts jobs, tells how they stand, cancels them, deletes what belongs to a subject."""

    def __init__(self, store: Store, ledger: Ledger, notifier: Notifier, *, keep_photos: bool = False) -> None:
        self.archive = Archive(store)
        self.ledger = ledger
        self.notifier = notifier
        self.keep_photos = keep_photos

    def create_subject(  # noqa: PLR0913 - what the form of the route has
        self,
        tenant: str,
        photos: Sequence[bytes],
        *,
        consent: Consent,
        name: str | None = None,
        class_noun: str | None = None,
        rank: int | None = None,
        steps: int | None = None,
        seed: int = 0,
        keep_photos: bool = False,
        request_id: str = "",
    ) -> tuple[Subject, Job]:
        """Store the aligned PNGs, accept a personalising job and ring for it.

        When this returns, the request is durable. Raises QueueFull and BrokerUnavailable; then nothing stays stored.
        """
        self.refuse_when_full(JobKind.PERSONALIZE)
        subject_id, job_id = new_id("sub"), new_id("job")
        folder = keys.photos(tenant, subject_id, job_id)
        names = tuple(f"{folder}{index}.png" for index in range(len(photos)))
        request = PersonalizeRequest(
            subject_id=subject_id, photos=names, rank=rank, steps=steps, seed=seed, class_noun=class_noun
        )
        accepted = _accepted(tenant, request, request_id, job_id)
        subject = Subject(
            id=subject_id,
            tenant=tenant,
            status=SubjectStatus.PERSONALIZING,
            created_at=accepted.created_at,
            job_id=accepted.job_id,
            name=name,
            class_noun=class_noun,
            consent=consent,
            photos=names,
            photos_sent=len(photos),
            keep_photos=keep_photos,
        )

        def store_all() -> None:
            # The request comes first: whatever else is stored can then be found and removed if this process dies. The
            # document comes last: with it the subject is there.
            for key, photo in zip(names, photos, strict=True):
                self.archive.store.put(key, photo, content_type="image/png")
            self.archive.put_subject(subject)

        def undo() -> None:
            self.archive.store.delete_prefix(keys.subject(tenant, subject_id))

        job = self.accept(accepted, store_all, undo)
        return subject, job

    def create_generation(self, tenant: str, request: GenerateRequest, *, request_id: str = "") -> Job:
        """Accept a generating job and ring for it.

        Raises SubjectNotFound, SubjectNotReady, QueueFull, BrokerUnavailable; then nothing stays stored.
        """
        self.refuse_when_full(JobKind.GENERATE)
        pinned = request.pinned(partial(self.weights_key, tenant, stage=request.stage))
        return self.accept(_accepted(tenant, pinned, request_id), partial(self._check_subjects, tenant, request))

    def admit(self, item: Accepted) -> None:
        """Accept an item of a batch, whatever else waits, and ring for it; nothing new when it is accepted already.

        Nothing is undone when this fails half-way: it may be the second time, and the job may be running. Only when
        a subject is no longer there nothing stays stored: raises SubjectNotFound.
        """
        tenant, subject_ids = item.tenant, item.request.subject_ids
        self.archive.put_accepted(item)
        self.archive.mark(tenant, subject_ids, item.job_id)
        listing.note(self.archive.store, item.as_job())
        try:
            self._check_subjects(tenant, item.request)
        except SubjectNotFound:
            self.archive.erase_job(tenant, item.job_id)
            self.archive.unmark(tenant, subject_ids, item.job_id)
            raise
        self._enqueue(item, bounded=False)

    def job(self, tenant: str, job_id: str) -> Job:
        """How the job stands: from Redis while it is known there, then from the store. Raises JobNotFound."""
        return self.standing(tenant, job_id)[0]

    def standing(self, tenant: str, job_id: str) -> Standing:
        """The same with its position in the queue. Raises JobNotFound."""
        if is_id(job_id, "job"):
            for standing in pages.read(self.archive, self.ledger, tenant, [job_id]):
                return standing
        raise JobNotFound(f"There is no job {job_id[:40]}.")

    def page(self, tenant: str, wanted: Wanted, *, limit: int = 20, after: str = "") -> Page:
        """The newest jobs of those wanted, at most `limit`, older than the job `after`; see pages.page."""
        return pages.page(self.archive, self.ledger, tenant, wanted, limit=limit, after=after)

    def position(self, job: Job) -> int | None:
        """How many jobs are before this one in its queue; None when it is not queued."""
        return self.ledger.position(job)

    def cancel(self, tenant: str, job_id: str) -> Job:
        """Ask the job to stop: at once when queued, within two steps when running. Raises JobNotFound, JobOver."""
        job = self.job(tenant, job_id)
        answer = self.ledger.cancel(job.ref)
        if answer == "unknown" and not job.state.is_final:  # accepted, but Redis lost it: it must hear of it first
            self.restore(tenant, job_id)
            answer = self.ledger.cancel(job.ref)
        if answer in ("over", "unknown"):
            raise JobOver(f"Job {job_id} is already over.")
        job = self.job(tenant, job_id)
        if answer == "canceled":
            self.settle(job)
        return job

    def subject(self, tenant: str, subject_id: str) -> Subject:
        """The subject's document. Raises SubjectNotFound, also while it is being deleted.

        A job is over a moment before its subject's document says so: who saw the one must not miss the other.
        """
        subject = self.archive.subject(tenant, subject_id)
        if subject.is_busy:
            with contextlib.suppress(BrokerUnavailable):
                job = self.ledger.get(f"{tenant}/{subject.job_id}")
                if job and job.state.is_final:
                    self.settle(job)
                    return self.archive.subject(tenant, subject_id)
        return subject

    def subjects(self, tenant: str, *, limit: int = 100, after: str = "") -> list[Subject]:
        """Subjects, newest first, those older than the subject `after`."""
        return list(islice(self.archive.subjects(tenant, after=after), limit))

    def weights(self, tenant: str, subject_id: str, stage: WeightsStage = WeightsStage.REFINED) -> bytes:
        """A subject's .lidb file. Raises SubjectNotFound, SubjectNotReady."""
        try:
            return self.archive.store.get(self.weights_key(tenant, subject_id, stage))
        except ObjectNotFound:
            raise SubjectNotFound(f"There is no subject {subject_id}.") from None

    def weights_key(self, tenant: str, subject_id: str, stage: WeightsStage) -> str:
        """Where a subject's weights are. Raises SubjectNotFound, SubjectNotReady."""
        subject = self.subject(tenant, subject_id)
        weights: Weights | None = subject.weights
        key = weights and (weights.refined_key if stage is WeightsStage.REFINED else weights.preview_key)
        if key is None and stage is WeightsStage.PREVIEW and subject.status is SubjectStatus.PERSONALIZING:
            job = self.ledger.get(f"{tenant}/{subject.job_id}")
            key = job.preview.weights_key if job and job.preview else None
        if not key:
            waits = "ask for stage=refined" if weights else "wait until its job has succeeded"
            raise SubjectNotReady(f"Subject {subject_id} has no {stage} weights; {waits}.")
        return key

    def image(self, tenant: str, image_id: str) -> bytes:
        """A generated picture as PNG. Raises ImageNotFound."""
        missing = ImageNotFound(f"There is no image {image_id[:40]}.")
        if not is_id(image_id, "img"):
            raise missing
        try:
            job = self.job(tenant, keys.job_of_image(image_id))
            images = job.result.images if isinstance(job.result, GenerateResult) else ()
            if job.preview:
                images = (*job.preview.before, job.preview.image)
            return self.archive.store.get(next(image.key for image in images if image.id == image_id))
        except (JobNotFound, ObjectNotFound, StopIteration):
            raise missing from None

    def delete_subject(self, tenant: str, subject_id: str) -> Receipt:
        """Erase photo, weights, images, jobs and requests, also while a job is running. Raises SubjectNotFound.

        Repeating it gives the same receipt, for a day.
        """
        receipt = self.archive.receipt(tenant, subject_id) if is_id(subject_id, "sub") else None
        if receipt is None:
            self.archive.subject(tenant, subject_id)
            receipt = Receipt(subject_id=subject_id, tenant=tenant, deleted_at=time.time())
            self.archive.put_receipt(receipt)  # from here on no job can join, and none can settle
        return erase(self.archive, self.ledger, receipt)

    def queue_lengths(self) -> dict[str, int]:
        """Queued jobs of each kind, queued items of batches, and running jobs: what to scale on."""
        lengths = {kind.value: self.ledger.queued(kind) for kind in JobKind}
        return lengths | {"batch": self.ledger.queued_items().total(), "running": self.ledger.running()}

    def check(self) -> dict[str, str]:
        """Whether Redis and the store answer: "ok" or the error's code under "redis" and "store". Never raises."""
        return {"redis": _probe(self.ledger.ping), "store": _probe(self.archive.store.ping)}

    def restore(self, tenant: str, job_id: str) -> None:
        """Queue what was accepted and Redis does not know, and ring for it; nothing when it is not pending."""
        if accepted := self.archive.accepted(tenant, job_id):
            self._enqueue(accepted, bounded=False)

    def settle(self, job: Job) -> None:
        """Write down how a job ended."""
        settle(self.archive, self.ledger, job, keep_photos=self.keep_photos)

    def notify(self, kind: JobKind, ref: str) -> None:
        """Ring for a job; if that fails, the reaper rings later."""
        try:
            self.notifier.notify(kind.value, ref)
        except BrokerUnavailable:
            _log.warning("notification.failed", extra={"ref": ref})

    def _check_subjects(self, tenant: str, request: Request) -> None:
        """A deletion that began meanwhile either finds the job, which is marked by now, or is seen here."""
        for subject_id in request.subject_ids:
            self.archive.subject(tenant, subject_id)

    def accept(self, accepted: Accepted, store_all: Callable[[], None], undo: Callable[[], None] = lambda: None) -> Job:
        """Make the request durable, store what belongs to it, queue it and ring; undo all of it when one step fails."""
        tenant, job_id, subject_ids = accepted.tenant, accepted.job_id, accepted.request.subject_ids
        try:
            self.archive.put_accepted(accepted)
            self.archive.mark(tenant, subject_ids, job_id)
            listing.note(self.archive.store, accepted.as_job())
            store_all()
            return self._enqueue(accepted, bounded=True)
        except HyperDreamBoothError:
            with contextlib.suppress(HyperDreamBoothError):
                self.archive.drop_accepted(tenant, job_id)
                self.archive.unmark(tenant, subject_ids, job_id)
                listing.forget(self.archive.store, tenant, job_id)
                undo()
            raise

    def _enqueue(self, accepted: Accepted, *, bounded: bool) -> Job:
        job, request = accepted.as_job(), accepted.request
        group, rows = (request.batch_group, request.n) if isinstance(request, GenerateRequest) else ("", 1)
        if self.ledger.accept(job, batch_group=group, rows=rows, bounded=bounded) == "full":
            raise QueueFull("Too many jobs are waiting; try again later.", retry_after=10.0)
        self.notify(job.kind, job.ref)
        return job

    def refuse_when_full(self, kind: JobKind) -> None:
        """Raises QueueFull. Before anything is written; this also finds out in time whether Redis is there."""
        if self.ledger.queued(kind) >= self.ledger.limits.queue_limit:
            raise QueueFull("Too many jobs are waiting; try again later.", retry_after=10.0)


def open_jobs(settings: Settings, *, notifier: Notifier | None = None) -> Jobs:
    """The desk over the store and the Redis of the settings. Connects lazily: it does not fail when they are down."""
    limits = Limits(
        lease=settings.lease_seconds,
        notify_again=settings.notify_again_seconds,
        max_attempts=settings.max_attempts,
        queue_limit=settings.queue_limit,
    )
    notifier = notifier or CeleryNotifier(celery_app(settings, producer=True))
    return Jobs(open_store(settings), Ledger(connect(settings), limits), notifier, keep_photos=settings.keep_photos)


def _accepted(tenant: str, request: Request, request_id: str, job_id: str = "") -> Accepted:
    job_id = job_id or new_id("job")
    return Accepted(tenant=tenant, job_id=job_id, created_at=time.time(), request_id=request_id, request=request)


def _probe(ping: Callable[[], None]) -> str:
    try:
        ping()
    except HyperDreamBoothError as error:
        return error.code
    return "ok"
