"""Deleting subjects: everything of theirs goes, also while their jobs run. A receipt stays for a day.

Erasing can be repeated by anybody without harm, and is: whatever a job that was late has written goes as well.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from functools import partial

from core.errors import BrokerUnavailable, SubjectNotFound
from core.ids import is_id
from core.jobs.archive import JobArchive
from core.jobs.ledger import Ledger
from core.queue.failures import Failures
from core.records import Receipt
from core.subjects.documents import SubjectDocuments

_log = logging.getLogger(__name__)
_RECEIPT_SECONDS = 24 * 3600
MOST_AT_ONCE = 100
"""Jobs that are erased while the caller waits; what has more is erased by the maintenance, within a minute."""


class SubjectDeletion:
    """Deletes subjects, and erases what is left of them."""

    def __init__(
        self,
        documents: SubjectDocuments,
        archive: JobArchive,
        ledger: Ledger,
        *,
        failures: Failures,
        forget: Sequence[Callable[[str, str], None]] = (),
        on_deleted: Callable[[Receipt], None] = lambda _: None,
    ) -> None:
        """`forget` take a tenant and a subject's id, and remove what others keep about it (batches, answers)."""
        self._documents = documents
        self._archive = archive
        self._ledger = ledger
        self._failures = failures
        self._forget = forget
        self._on_deleted = on_deleted

    def delete(self, tenant: str, subject_id: str) -> Receipt:
        """Erase photos, weights, images, jobs and requests, also while a job is running. Raises SubjectNotFound.

        Repeating it returns the same receipt, for a day. With more than MOST_AT_ONCE jobs it is only begun: no job can
        join, commit or be claimed, and the maintenance erases.
        """
        receipt = self._documents.receipt(tenant, subject_id) if is_id(subject_id, "sub") else None
        if receipt is None:
            if not (is_id(subject_id, "sub") and self._documents.exists(tenant, subject_id)):
                raise SubjectNotFound(f"There is no subject {subject_id[:40]}.")
            receipt = self._begin(tenant, subject_id)
        job_ids = self._archive.job_ids(tenant, subject_id)
        if len(job_ids) <= MOST_AT_ONCE:
            return self.erase(receipt)
        self._end_claims(tenant, subject_id, job_ids)
        return receipt

    def erase(self, receipt: Receipt, *, also: Sequence[str] = ()) -> Receipt:
        """Remove everything of a deleted subject, whatever its jobs do. Returns the receipt with all its jobs.

        The claims go first, so that no worker can commit; then the objects. Redis may be down: the maintenance repeats
        it. Once it has been done to its end, only those jobs come again that a worker may still write to, and `also`.
        """
        tenant, subject_id = receipt.tenant, receipt.subject_id
        known = receipt.job_ids if receipt.late is None else receipt.late
        job_ids = sorted({*known, *also, *self._archive.job_ids(tenant, subject_id)})
        if not set(job_ids) <= set(receipt.job_ids):
            receipt = receipt.model_copy(update={"job_ids": tuple(sorted({*receipt.job_ids, *job_ids}))})
            self._documents.put_receipt(receipt)
        late = () if receipt.notified else tuple(each for each in job_ids if not self._archive.is_at_rest(tenant, each))
        self._end_claims(tenant, subject_id, job_ids)
        self._erase_objects(tenant, subject_id, job_ids)
        if not receipt.notified:
            self._on_deleted(receipt)
            receipt = receipt.model_copy(update={"notified": True, "late": late})
            self._documents.put_receipt(receipt)
        return receipt

    def erase_again(self, erase_seconds: float) -> None:
        """Erase deleted subjects again, until `erase_seconds` after the deletion: no worker can write to them then."""
        for tenant, subject_id in list(self._documents.erasing()):
            again = partial(self._erase_again, tenant, subject_id, erase_seconds)
            self._failures.attempt("erase", f"{tenant}/{subject_id}", again)

    def _erase_again(self, tenant: str, subject_id: str, erase_seconds: float) -> None:
        # Without a receipt: who began the deletion died, and its caller got no answer.
        receipt = self._documents.receipt(tenant, subject_id) or self._begin(tenant, subject_id)
        self.erase(receipt)
        if time.time() - receipt.deleted_at > erase_seconds:
            self._documents.end_erasing(receipt)

    def drop_receipts(self) -> None:
        """Forget subjects that were deleted more than a day ago."""
        self._documents.drop_receipts(time.time() - _RECEIPT_SECONDS)

    def _begin(self, tenant: str, subject_id: str) -> Receipt:
        """From here on no job can join, and none can settle."""
        receipt = Receipt(subject_id=subject_id, tenant=tenant, deleted_at=time.time())
        self._documents.put_receipt(receipt)
        return receipt

    def _end_claims(self, tenant: str, subject_id: str, job_ids: Sequence[str]) -> None:
        try:
            self._ledger.erase([f"{tenant}/{job_id}" for job_id in job_ids])
        except BrokerUnavailable:
            _log.warning("subject.erase_incomplete", extra={"subject_id": subject_id})

    def _erase_objects(self, tenant: str, subject_id: str, job_ids: Sequence[str]) -> None:
        self._archive.erase(tenant, job_ids)
        for forget in self._forget:
            forget(tenant, subject_id)
        self._documents.drop(tenant, subject_id)
        self._archive.unmark_all(tenant, subject_id)
