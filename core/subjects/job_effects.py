"""What a job means for its subject, and what jobs have to know of subjects: JobSubjects and RequestSubjects."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from core.errors import SubjectNotFound
from core.jobs.archive import Accepted
from core.records import Job, JobKind, JobState, PersonalizeRequest, PersonalizeResult, Subject, SubjectStatus
from core.subjects.deletion import SubjectDeletion
from core.subjects.documents import SubjectDocuments

_STATUS = {
    JobState.SUCCEEDED: SubjectStatus.READY,
    JobState.FAILED: SubjectStatus.FAILED,
    JobState.CANCELED: SubjectStatus.CANCELED,
}
_OF_THE_RESULT = ("weights", "likeness", "likeness_by", "tries", "kept_step", "bundle", "bundle_fingerprint")


class SubjectJobEffects:
    """The subjects, as far as jobs see them."""

    def __init__(self, documents: SubjectDocuments, deletion: SubjectDeletion, *, keep_photos: bool = False) -> None:
        """`keep_photos`: keep the photos of all subjects, whatever their owner has chosen."""
        self._documents = documents
        self._deletion = deletion
        self._keep_photos = keep_photos

    def check(self, tenant: str, subject_ids: Iterable[str]) -> None:
        """Raises SubjectNotFound when one of them is not there, or is being deleted."""
        self._documents.check(tenant, subject_ids)

    def is_whole(self, accepted: Accepted) -> bool:
        """Whether all that belongs to a request is in the store.

        With photos come their consent and their names in the document, written last: the document names the job then.
        """
        tenant, request = accepted.tenant, accepted.request
        if isinstance(request, PersonalizeRequest):
            subject = self._documents.find(tenant, request.subject_id)
            return subject is not None and subject.job_id == accepted.job_id
        return all(self._documents.exists(tenant, subject_id) for subject_id in request.subject_ids)

    def drop_unfinished(self, accepted: Accepted) -> None:
        """Remove a subject whose creation was not finished, or the photos that were not added."""
        tenant, request = accepted.tenant, accepted.request
        if not isinstance(request, PersonalizeRequest):
            return
        if self._documents.exists(tenant, request.subject_id):
            self._documents.drop_photos_of(accepted.as_job())
        else:
            self._documents.drop(tenant, request.subject_id)

    def is_deleted(self, job: Job) -> bool:
        """Whether one of the job's subjects was deleted."""
        return any(self._documents.is_deleted(job.tenant, subject_id) for subject_id in job.subject_ids)

    def erase_deleted(self, job: Job) -> bool:
        """Whether one of the job's subjects was deleted; then all that is left of it is erased, this job as well."""
        receipts = self._documents.receipts(job)
        for receipt in receipts:
            self._deletion.erase(receipt, also=[job.id])
        return bool(receipts)

    def job_ended(self, job: Job) -> None:
        """Write the end of a personalizing job into its subject's document, and drop the photos that are not kept."""
        if job.kind is not JobKind.PERSONALIZE:
            return
        try:
            subject = self._documents.get(job.tenant, job.subject_id)
        except SubjectNotFound:
            return
        keep = self._keep_photos or subject.keep_photos
        # A job that is older than the subject's has been settled before. Ids sort by the time they were made.
        is_latest = subject.job_id == job.id or (subject.job_id < job.id and job.state is JobState.SUCCEEDED)
        if not keep:
            if is_latest:
                self._documents.drop_photos(subject)
            self._documents.drop_photos_of(job)
        if is_latest and (after := _after(subject, job, keep_photos=keep)) != subject:
            self._documents.put(after)


def _after(subject: Subject, job: Job, *, keep_photos: bool) -> Subject:
    """The subject's document after its job has ended. What it had stays when there is nothing better."""
    status = SubjectStatus.READY if subject.weights else _STATUS[job.state]
    changes: dict[str, Any] = {"status": status, "refining": False, "job_id": job.id, "error": job.error}
    if not keep_photos:
        changes["photos"] = ()
    if isinstance(job.result, PersonalizeResult):
        changes |= {name: getattr(job.result, name) for name in _OF_THE_RESULT}
        if job.preview or not subject.weights:
            changes["preview_image"] = job.preview.image if job.preview else None
        else:
            changes["weights"] = job.result.weights.model_copy(update={"preview_key": subject.weights.preview_key})
    if isinstance(job.result, PersonalizeResult) or not subject.weights:
        changes["seconds"] = job.seconds
    return subject.model_copy(update=changes)
