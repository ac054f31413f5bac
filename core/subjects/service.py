"""Subjects: created from photos, read, generated from, deleted.

Every method may raise StoreUnavailable and BrokerUnavailable (both bounded in time), besides what it names.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from functools import partial
from itertools import islice
from typing import Any

from core.errors import BrokerUnavailable, SubjectNotFound, SubjectNotReady
from core.ids import new_id
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

    def create(
        self,
        tenant: str,
        photos: Sequence[bytes],
        *,
        consent: Consent,
        name: str | None = None,
        class_noun: str | None = None,
        keep_photos: bool = False,
        request_id: str = "",
        **options: Any,
    ) -> tuple[Subject, Job]:
        """Store the aligned PNGs, and accept a personalizing job; `options` are rank, steps and seed.

        When this returns, the request is durable. Raises QueueFull and BrokerUnavailable; then nothing stays stored.
        """
        self._jobs.refuse_when_full(JobKind.PERSONALIZE)
        subject_id, job_id = new_id("sub"), new_id("job")
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
            keep_photos=keep_photos,
        )
        # The request is stored first: whatever else is stored can then be found and removed if this process dies. The
        # document comes last: with it the subject is there.
        put, drop = partial(self._documents.put, subject, files), partial(self._documents.drop, tenant, subject_id)
        return subject, self._jobs.accept(accepted, put, drop)

    def generate(self, tenant: str, request: GenerateRequest, *, request_id: str = "") -> Job:
        """Accept a job that makes pictures of a subject, or of a blend.

        Raises SubjectNotFound, SubjectNotReady, QueueFull, BrokerUnavailable; then nothing stays stored.
        """
        self._jobs.refuse_when_full(JobKind.GENERATE)
        pinned = request.pinned(partial(self.weights_key, tenant, stage=request.stage))
        accepted = Accepted.now(tenant, pinned, request_id=request_id)
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
            return self._documents.read(key)
        except SubjectNotFound:
            raise SubjectNotFound(f"There is no subject {subject_id}.") from None

    def weights_key(self, tenant: str, subject_id: str, stage: WeightsStage) -> str:
        """Where a subject's weights are in the store. Raises SubjectNotFound, SubjectNotReady."""
        subject = self.get(tenant, subject_id)
        weights = subject.weights
        key = weights and (weights.refined_key if stage is WeightsStage.REFINED else weights.preview_key)
        if key is None and stage is WeightsStage.PREVIEW and subject.status is SubjectStatus.PERSONALIZING:
            job = self._jobs.get_live(tenant, subject.job_id)
            key = job.preview.weights_key if job and job.preview else None
        if not key:
            waits = "ask for stage=refined" if weights else "wait until its job has succeeded"
            raise SubjectNotReady(f"Subject {subject_id} has no {stage} weights; {waits}.")
        return key

    def pinned_weights(self, tenant: str, subject_id: str, key: str, stage: WeightsStage) -> bytes:
        """The weights that a request has pinned; of a preview, which each attempt makes anew, the present one.

        Raises SubjectNotFound: it was deleted meanwhile. SubjectNotReady: its personalizing came to nothing.
        """
        if stage is WeightsStage.PREVIEW and not self._documents.has(key):
            return self.weights(tenant, subject_id, stage)
        return self._documents.read(key)

    def read(self, key: str) -> bytes:
        """A photo or weights that a request names. Raises SubjectNotFound: the subject was deleted meanwhile."""
        return self._documents.read(key)

    def is_deleted(self, tenant: str, subject_id: str) -> bool:
        """Whether the subject was deleted, in the last day."""
        return self._documents.is_deleted(tenant, subject_id)

    def delete(self, tenant: str, subject_id: str) -> Receipt:
        """Erase all that there is of the subject; see SubjectDeletion.delete. Raises SubjectNotFound."""
        return self._deletion.delete(tenant, subject_id)


def photo_files(tenant: str, subject_id: str, job_id: str, photos: Sequence[bytes]) -> dict[str, bytes]:
    """The photos that a job comes with, by the keys under which they are stored."""
    folder = keys.photos(tenant, subject_id, job_id)
    return {f"{folder}{index}.png": photo for index, photo in enumerate(photos)}
