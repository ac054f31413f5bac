"""Subjects: created from photos, read, generated from, deleted.

Every method may raise StoreUnavailable and BrokerUnavailable (both bounded in time), besides what it names.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from functools import partial
from itertools import islice
from typing import Any

from core.errors import BrokerUnavailable, JobNotFound, ResponseErased, SubjectNotFound, SubjectNotReady
from core.ids import NEW, Ids
from core.jobs.archive import Accepted
from core.jobs.service import JobService
from core.records import (
    Consent,
    GenerateRequest,
    Job,
    JobKind,
    PersonalizeRequest,
    Receipt,
    Subject,
    SubjectStatus,
    SubjectWarning,
    WeightsStage,
)
from core.storage import keys
from core.subjects.deletion import SubjectDeletion
from core.subjects.documents import SubjectDocuments


class SubjectService:
    """The subjects of all tenants."""

    def __init__(self, documents: SubjectDocuments, deletion: SubjectDeletion, jobs: JobService) -> None:
        self._documents = documents
        self._deletion = deletion
        self._jobs = jobs

    def create(  # noqa: PLR0913 - what a subject has
        self,
        tenant: str,
        photos: Sequence[bytes],
        *,
        consent: Consent,
        name: str | None = None,
        class_noun: str | None = None,
        keep_photos: bool = False,
        warnings: Sequence[SubjectWarning] = (),
        request_id: str = "",
        ids: Ids = NEW,
        **options: Any,
    ) -> tuple[Subject, Job]:
        """Store the aligned PNGs, and accept a personalizing job; `options` are rank, steps and seed.

        `warnings` about the photos stay with the subject.

        When this returns, the request is durable. Raises QueueFull, ServiceBusy, BrokerUnavailable; then nothing stays
        stored.
        Raises ResponseErased: it is repeated (`ids`), and what it made was deleted.
        """
        subject_id, job_id = ids("sub"), ids("job")
        if ids.repeated and self.is_deleted(tenant, subject_id):
            raise ResponseErased("What this request made was deleted; to make it anew, send it with another key.")
        if ids.repeated and (subject := self._documents.find(tenant, subject_id)):
            with contextlib.suppress(JobNotFound):
                return subject, self._jobs.get(tenant, job_id)
        self._jobs.refuse_when_full(tenant, JobKind.PERSONALIZE)
        files = photo_files(tenant, subject_id, job_id, photos)
        request = PersonalizeRequest(subject_id=subject_id, photos=tuple(files), class_noun=class_noun, **options)
        accepted = Accepted.now(tenant, request, request_id=request_id, job_id=job_id)
        subject = Subject(
            id=subject_id,
            tenant=tenant,
            status=SubjectStatus.PERSONALIZING,
            created_at=accepted.created_at,
            job_id=job_id,
            name=name,
            class_noun=class_noun,
            consent=consent,
            photos=request.photos,
            photos_sent=len(photos),
            warnings=tuple(warnings),
            keep_photos=keep_photos,
        )
        # The request is stored first: whatever else is stored can then be found and removed if this process dies. The
        # document comes last: with it the subject is there.
        put, drop = partial(self._documents.put, subject, files), partial(self._documents.drop, tenant, subject_id)
        return subject, self._jobs.accept(accepted, put, drop)

    def generate(self, tenant: str, request: GenerateRequest, *, request_id: str = "", ids: Ids = NEW) -> Job:
        """Accept a job that makes pictures of a subject, or of a blend; repeated (`ids`), that of the first try.

        Raises SubjectNotFound, SubjectNotReady, QueueFull, ServiceBusy, BrokerUnavailable; then nothing stays stored.
        """
        job_id = ids("job")
        if ids.repeated:
            with contextlib.suppress(JobNotFound):
                return self._jobs.get(tenant, job_id)
        self._jobs.refuse_when_full(tenant, JobKind.GENERATE)
        found = {each: self.get(tenant, each) for each in request.subject_ids}
        pinned = request.pinned(lambda each: self._key_of(found[each], request.stage))
        model = found[request.subject_ids[0]].bundle_fingerprint
        accepted = Accepted.now(tenant, pinned, request_id=request_id, job_id=job_id, model=model)
        return self._jobs.accept(accepted, partial(self._documents.check, tenant, request.subject_ids))

    def get(self, tenant: str, subject_id: str) -> Subject:
        """The subject's document. Raises SubjectNotFound, also while it is being deleted.

        A job is over a moment before its subject's document says so: who saw the one must not miss the other.
        """
        subject = self._documents.get(tenant, subject_id)
        if subject.is_busy:
            with contextlib.suppress(BrokerUnavailable):
                job = self._jobs.get_live(tenant, subject.job_id)
                if job and job.state.is_final:
                    self._jobs.settle(job)
                    return self._documents.get(tenant, subject_id)
        return subject

    def page(self, tenant: str, *, limit: int = 100, after: str = "") -> list[Subject]:
        """Subjects, newest first, at most `limit`, those older than the subject `after`."""
        return list(islice(self._documents.newest_first(tenant, after=after), limit))

    def weights(self, tenant: str, subject_id: str, stage: WeightsStage = WeightsStage.REFINED) -> bytes:
        """A subject's .lidb file. Raises SubjectNotFound, SubjectNotReady."""
        key = self.weights_key(tenant, subject_id, stage)
        try:
            return self._documents.read(tenant, key)
        except SubjectNotFound:
            raise SubjectNotFound(f"There is no subject {subject_id}.") from None

    def weights_key(self, tenant: str, subject_id: str, stage: WeightsStage) -> str:
        """Where a subject's weights are in the store. Raises SubjectNotFound, SubjectNotReady."""
        return self._key_of(self.get(tenant, subject_id), stage)

    def _key_of(self, subject: Subject, stage: WeightsStage) -> str:
        weights = subject.weights
        key = weights and (weights.refined_key if stage is WeightsStage.REFINED else weights.preview_key)
        if key is None and stage is WeightsStage.PREVIEW and subject.status is SubjectStatus.PERSONALIZING:
            job = self._jobs.get_live(subject.tenant, subject.job_id)
            key = keys.weights(subject.tenant, job.id, job.fence, "preview") if job and job.preview else None
        if not key:
            raise SubjectNotReady(f"Subject {subject.id} has no {stage} weights: {_why_none(subject)}.")
        return key

    def pinned_weights(self, tenant: str, subject_id: str, key: str, stage: WeightsStage) -> bytes:
        """The weights that a request has pinned; of a preview, which each attempt makes anew, the present one.

        Raises SubjectNotFound: it was deleted meanwhile. SubjectNotReady: its personalizing came to nothing.
        """
        return self._documents.read(tenant, self.pinned_key(tenant, subject_id, key, stage))

    def pinned_key(self, tenant: str, subject_id: str, key: str, stage: WeightsStage) -> str:
        """Where those weights are in the store. Raises as `pinned_weights` does."""
        if stage is WeightsStage.PREVIEW and not self._documents.has(tenant, key):
            return self.weights_key(tenant, subject_id, stage)
        return key

    def read(self, tenant: str, key: str) -> bytes:
        """A photo or weights that a request of the tenant names. Raises SubjectNotFound: it was deleted meanwhile."""
        return self._documents.read(tenant, key)

    def is_deleted(self, tenant: str, subject_id: str) -> bool:
        """Whether the subject was deleted, in the last day."""
        return self._documents.is_deleted(tenant, subject_id)

    def delete(self, tenant: str, subject_id: str) -> Receipt:
        """Erase all that there is of the subject; see SubjectDeletion.delete. Raises SubjectNotFound."""
        return self._deletion.delete(tenant, subject_id)


def _why_none(subject: Subject) -> str:
    """Why a subject lacks weights, and what to do about it."""
    if subject.weights:
        return "ask for stage=refined"
    if subject.status is SubjectStatus.PERSONALIZING:
        return f"wait until its job {subject.job_id} has succeeded"
    came_to = "was canceled" if subject.status is SubjectStatus.CANCELED else "has failed"
    return f"personalizing it {came_to}; send its photos again, or make a new subject"


def photo_files(tenant: str, subject_id: str, job_id: str, photos: Sequence[bytes]) -> dict[str, bytes]:
    """The photos that a job comes with, by the keys under which they are stored."""
    folder = keys.photos(tenant, subject_id, job_id)
    return {f"{folder}{index}.png": photo for index, photo in enumerate(photos)}
