"""How things end: a job is written down, a subject is erased. Both can be repeated by anybody without harm."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from core.errors import BrokerUnavailable, SubjectNotFound
from core.jobs import listing
from core.jobs.archive import Archive
from core.jobs.ledger import Ledger
from core.records import Job, JobKind, JobState, PersonalizeResult, Receipt, Subject, SubjectStatus
from core.storage import keys
from core.tenants import usage
from core.webhooks import publish

_log = logging.getLogger(__name__)
_STATUS = {
    JobState.SUCCEEDED: SubjectStatus.READY,
    JobState.FAILED: SubjectStatus.FAILED,
    JobState.CANCELED: SubjectStatus.CANCELED,
}


def settle(archive: Archive, ledger: Ledger, job: Job, *, keep_photos: bool) -> None:
    """Write down in the store how the job ended, and drop what it no longer needs.

    Who ended the job calls this; if it dies on the way, the reaper does, since the request is only dropped at the end.
    """
    if _erase_deleted(archive, ledger, job):
        return
    first = archive.put_outcome(job)
    if first.fence != job.fence:  # it had ended before, and Redis had lost that
        ledger.erase([job.ref])
    if first.kind is JobKind.PERSONALIZE:
        _settle_subject(archive, first, keep_photos=keep_photos)
    usage.note(archive.store, first)
    listing.note(archive.store, first)
    publish.job_ended(archive.store, ledger.redis, first)
    archive.drop_other_attempts(first)
    archive.drop_accepted(job.tenant, job.id)
    ledger.expire(job.ref)
    _erase_deleted(archive, ledger, job)  # deleted meanwhile: what was just written goes as well


def erase(archive: Archive, ledger: Ledger, receipt: Receipt, *, also: Sequence[str] = ()) -> Receipt:
    """Remove everything of a deleted subject, whatever state its jobs are in; gives the receipt with all its jobs.

    The claims go first, so that no worker can commit; then the objects. Redis may be down: the reaper repeats it. Once
    it has been done to its end, only those jobs come again that somebody may still write to, and these (`also`).
    """
    known = receipt.job_ids if receipt.late is None else receipt.late
    job_ids = sorted({*known, *also, *archive.job_ids(receipt.tenant, receipt.subject_id)})
    if not set(job_ids) <= set(receipt.job_ids):
        receipt = receipt.model_copy(update={"job_ids": tuple(sorted({*receipt.job_ids, *job_ids}))})
        archive.put_receipt(receipt)
    late = () if receipt.told else tuple(each for each in job_ids if not archive.is_at_rest(receipt.tenant, each))
    try:
        ledger.erase([f"{receipt.tenant}/{job_id}" for job_id in job_ids])
    except BrokerUnavailable:
        _log.warning("subject.erase_incomplete", extra={"subject_id": receipt.subject_id})
    archive.erase(receipt, job_ids)
    if not receipt.told:
        publish.subject_deleted(archive.store, ledger.redis, receipt)
        receipt = receipt.model_copy(update={"told": True, "late": late})
        archive.put_receipt(receipt)
    return receipt


def _erase_deleted(archive: Archive, ledger: Ledger, job: Job) -> bool:
    """Whether one of the job's subjects was deleted; then all that is left of it is erased, this job as well."""
    receipts = archive.receipts(job)
    for receipt in receipts:
        erase(archive, ledger, receipt, also=[job.id])
    return bool(receipts)


def _settle_subject(archive: Archive, job: Job, *, keep_photos: bool) -> None:
    try:
        subject = archive.subject(job.tenant, job.subject_id)
    except SubjectNotFound:
        return
    keep = keep_photos or subject.keep_photos
    # A job that is older than the subject's has been settled before. Ids sort by the time they were made.
    is_latest = subject.job_id == job.id or (subject.job_id < job.id and job.state is JobState.SUCCEEDED)
    if not keep:
        for key in subject.photos if is_latest else ():
            archive.store.delete(key)
        archive.store.delete_prefix(keys.photos(job.tenant, job.subject_id, job.id))
    if is_latest and (after := _after(subject, job, keep_photos=keep)) != subject:
        archive.put_subject(after)


def _after(subject: Subject, job: Job, *, keep_photos: bool) -> Subject:
    """The subject's document after its job has ended. What it had stays when there is nothing better."""
    status = SubjectStatus.READY if subject.weights else _STATUS[job.state]
    changes: dict[str, Any] = {"status": status, "refining": False, "job_id": job.id, "error": job.error}
    if not keep_photos:
        changes["photos"] = ()
    if isinstance(job.result, PersonalizeResult):
        names = ("weights", "likeness", "likeness_by", "tries", "kept_step", "bundle", "bundle_fingerprint")
        changes |= {name: getattr(job.result, name) for name in names}
        if job.preview or not subject.weights:
            changes["preview_image"] = job.preview.image if job.preview else None
        else:
            changes["weights"] = job.result.weights.model_copy(update={"preview_key": subject.weights.preview_key})
    if isinstance(job.result, PersonalizeResult) or not subject.weights:
        changes["seconds"] = job.seconds
    return subject.model_copy(update=changes)
