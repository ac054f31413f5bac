"""More photos of a subject: it goes on with its weights until new ones are there.

Photos that were kept are learnt from again with the new ones. Where none were kept, the subject's refined
weights are what personalizing starts from. A job that comes to nothing leaves the subject as it was.

    hdb:{tenant}:adding:{subject}   the job whose photos are being added just now; ends with the call, or in 15 s
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from redis import Redis

from core.errors import BrokerUnavailable, InvalidInput, JobNotFound, SubjectBusy, SubjectNotFound
from core.ids import NEW, Ids
from core.jobs.archive import Accepted
from core.jobs.service import JobService
from core.queue.connection import redis_errors
from core.records import (
    Consent,
    Job,
    JobKind,
    PersonalizeRequest,
    Subject,
    SubjectStatus,
    SubjectWarning,
)
from core.subjects.documents import SubjectDocuments
from core.subjects.service import SubjectService, photo_files

MAX_PHOTOS = 24
"""How many photos a subject may be sent in all."""
_ADDING_SECONDS = 15


class SubjectPhotos:
    """The photos of subjects that are there already."""

    def __init__(self, subjects: SubjectService, documents: SubjectDocuments, jobs: JobService, redis: Redis) -> None:
        self._subjects = subjects
        self._documents = documents
        self._jobs = jobs
        self._redis = redis

    def add(
        self,
        tenant: str,
        subject_id: str,
        photos: Sequence[bytes],
        *,
        consent: Consent,
        keep_photos: bool | None = None,
        warnings: Sequence[SubjectWarning] = (),
        request_id: str = "",
        ids: Ids = NEW,
        **options: Any,
    ) -> tuple[Subject, Job]:
        """Store more aligned PNGs of a subject and accept a personalizing job; `options` are rank, steps and seed.

        `keep_photos`: keep these and later ones for refining; None: as the subject has it. `warnings` number these
        photos from 0; the subject numbers all that it was sent. When this returns, the request is durable. Raises
        SubjectNotFound, SubjectBusy, InvalidInput, QueueFull, BrokerUnavailable: then
        nothing changed.
        """
        if not ids.repeated:
            self._jobs.refuse_when_full(tenant, JobKind.PERSONALIZE)
        job_id = ids("job")
        with self._alone(tenant, subject_id, job_id):
            subject = self._subjects.get(tenant, subject_id)
            if ids.repeated and (job := self._added(subject, job_id)):
                return subject, job
            refuse(subject, len(photos))
            files = photo_files(tenant, subject_id, job_id, photos)
            request = PersonalizeRequest(
                subject_id=subject_id,
                photos=(*subject.photos, *files),
                class_noun=subject.class_noun,
                start_key=subject.weights.refined_key if subject.weights and not subject.photos else "",
                **options,
            )
            refined = subject.model_copy(
                update={
                    "status": SubjectStatus.READY if subject.weights else SubjectStatus.PERSONALIZING,
                    "refining": subject.weights is not None,
                    "job_id": job_id,
                    "consents": (*subject.consents, consent),
                    "photos": request.photos,
                    "photos_sent": subject.photos_sent + len(photos),
                    "warnings": (*subject.warnings, *(_after(subject.photos_sent, each) for each in warnings)),
                    "keep_photos": subject.keep_photos if keep_photos is None else keep_photos,
                    "error": None,
                }
            )
            accepted = Accepted.now(
                tenant,
                request,
                request_id=request_id,
                job_id=job_id,
                model=subject.bundle_fingerprint if request.start_key else "",
                refines=refined.refining,
            )
            job = self._jobs.accept(
                accepted, partial(self._put, refined, files), partial(self._undo, subject, accepted.as_job())
            )
            return refined, job

    def kept(self, subject: Subject) -> Iterator[bytes]:
        """The photos that were kept, as aligned PNGs, read one by one. Raises SubjectNotFound, StoreUnavailable."""
        return map(partial(self._documents.read, subject.tenant), subject.photos)

    def _added(self, subject: Subject, job_id: str) -> Job | None:
        """The job, when its photos were added by the first try of a request; None when that died on the way."""
        with contextlib.suppress(JobNotFound):
            job = self._jobs.get(subject.tenant, job_id)
            return job if job.state.is_final or subject.job_id == job_id else None
        return None

    def _put(self, subject: Subject, files: dict[str, bytes]) -> None:
        self._documents.put(subject, files)
        # A deletion that began meanwhile is seen here, or finds the job.
        self._documents.get(subject.tenant, subject.id)

    def _undo(self, before: Subject, job: Job) -> None:
        self._documents.drop_photos_of(job)
        try:
            self._documents.get(before.tenant, before.id)
        except SubjectNotFound:  # deleted meanwhile: what was just written must not stay
            self._documents.drop(before.tenant, before.id)
        else:
            self._documents.put(before)

    @contextlib.contextmanager
    def _alone(self, tenant: str, subject_id: str, job_id: str) -> Iterator[None]:
        """No other job gets photos of the subject meanwhile: two at once would undo what the other has done."""
        key = f"hdb:{tenant}:adding:{subject_id}"
        with redis_errors():
            if not self._redis.set(key, job_id, ex=_ADDING_SECONDS, nx=True) and self._redis.get(key) != job_id:
                raise SubjectBusy(
                    "Photos are being added to this subject just now; wait for that job, and send them again."
                )
        try:
            yield
        finally:
            with contextlib.suppress(BrokerUnavailable), redis_errors():
                self._redis.delete(key)


def _after(sent: int, warning: SubjectWarning) -> SubjectWarning:
    return warning.model_copy(update={"photo": sent + warning.photo})


def refuse(subject: Subject, count: int) -> None:
    """Raises SubjectBusy while the subject is personalized, InvalidInput for more photos than it may have."""
    if subject.is_busy:
        raise SubjectBusy(f"Wait until job {subject.job_id} is over, or cancel it, and send the photos again.")
    left = MAX_PHOTOS - subject.photos_sent
    if count > left:
        raise InvalidInput(
            f"A subject has at most {MAX_PHOTOS} photos in all, and {subject.photos_sent} were sent: "
            + (f"send {left} at most." if left else "the weights stay as they are."),
            field="photo",
        )
