"""Subjects in the object store: their documents, photos and weights, and the receipts of those that were deleted."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar

from core.errors import ObjectNotFound, SubjectNotFound
from core.ids import is_id
from core.records import Job, Receipt, Record, Subject
from core.storage import Store, keys
from core.storage.stored import dump, load

RecordT = TypeVar("RecordT", bound=Record)


class SubjectDocuments:
    """Subjects in the store. Every method raises StoreUnavailable."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def put(self, subject: Subject, photos: Mapping[str, bytes] | None = None) -> None:
        """Write the subject's document, and before it these photos (PNG) under their keys."""
        for key, photo in (photos or {}).items():
            self._store.put(key, photo, content_type="image/png")
        self._put(keys.document(subject.tenant, subject.id), subject)

    def find(self, tenant: str, subject_id: str) -> Subject | None:
        """The subject's document, also of one that is being deleted, or None."""
        return self._get(keys.document(tenant, subject_id), Subject)

    def get(self, tenant: str, subject_id: str) -> Subject:
        """The subject's document. Raises SubjectNotFound, also when only its receipt is left."""
        subject = self.find(tenant, subject_id) if is_id(subject_id, "sub") else None
        if subject is None or self.is_deleted(tenant, subject_id):
            raise SubjectNotFound(f"There is no subject {subject_id[:40]}.")
        return subject

    def check(self, tenant: str, subject_ids: Iterable[str]) -> None:
        """Raises SubjectNotFound when one of them is not there, or is being deleted."""
        for subject_id in subject_ids:
            self.get(tenant, subject_id)

    def exists(self, tenant: str, subject_id: str) -> bool:
        """Whether there is a document, also one that cannot be read."""
        key = keys.document(tenant, subject_id)
        return self._store.exists(key) or self._store.exists(keys.aside(key))

    def newest_first(self, tenant: str, *, after: str = "") -> Iterator[Subject]:
        """The tenant's subjects; those older than the subject `after`. All names are read before the first is."""
        prefix, end = keys.subjects(tenant), "/subject.json"
        names = [key.removeprefix(prefix).removesuffix(end) for key in self._store.list(prefix) if key.endswith(end)]
        for subject_id in reversed(names):
            if not after or subject_id < after:
                with contextlib.suppress(SubjectNotFound):
                    yield self.get(tenant, subject_id)

    def read(self, tenant: str, key: str) -> bytes:
        """A photo or weights of a subject, by their key. Raises SubjectNotFound: deleted, or not this tenant's."""
        try:
            return self._store.get(_own(tenant, key))
        except ObjectNotFound:
            raise SubjectNotFound("The subject was deleted.") from None

    def has(self, tenant: str, key: str) -> bool:
        """Whether there is such a photo, or such weights. Raises SubjectNotFound: it is not this tenant's."""
        return self._store.exists(_own(tenant, key))

    def drop_photos(self, subject: Subject) -> None:
        """Remove the photos that the document names."""
        for key in subject.photos:
            self._store.delete(key)

    def drop_photos_of(self, job: Job) -> None:
        """Remove the photos that a job came with."""
        self._store.delete_prefix(keys.photos(job.tenant, job.subject_id, job.id))

    def drop(self, tenant: str, subject_id: str) -> None:
        """Remove all that the subject has besides its jobs."""
        self._store.delete(keys.UNREADABLE + keys.document(tenant, subject_id))
        self._store.delete_prefix(keys.subject(tenant, subject_id))

    def put_receipt(self, receipt: Receipt) -> None:
        """Note that the subject is to be erased (again) until no job can write to it, and write the receipt.

        The note goes first: where a process died between the two, the deletion is carried out all the same.
        """
        self._store.put(keys.erasing(receipt.tenant, receipt.subject_id), b"")
        self._put(keys.erasure(receipt.tenant, receipt.subject_id), receipt)

    def receipt(self, tenant: str, subject_id: str) -> Receipt | None:
        """The receipt of a subject that was deleted, or None."""
        key = keys.erasure(tenant, subject_id)
        found = self._get(key, Receipt)
        if found is None and self._store.exists(keys.aside(key)):  # it cannot be read: the deletion stands
            found = Receipt(subject_id=subject_id, tenant=tenant, deleted_at=time.time())
            self._put(key, found)
            self._store.delete(keys.aside(key))
        return found

    def is_deleted(self, tenant: str, subject_id: str) -> bool:
        """Whether the subject was deleted, in the last day."""
        return self._store.exists(keys.erasure(tenant, subject_id))

    def receipts(self, job: Job) -> list[Receipt]:
        """The receipts of those of a job's subjects that were deleted."""
        found = (self.receipt(job.tenant, subject_id) for subject_id in job.subject_ids)
        return [receipt for receipt in found if receipt]

    def erasing(self) -> Iterator[tuple[str, str]]:
        """(tenant, subject) of what is to be erased, or erased again."""
        for key in self._store.list(keys.ERASING):
            _, tenant, subject_id = key.split("/")
            yield tenant, subject_id

    def end_erasing(self, receipt: Receipt) -> None:
        """No job can write to the subject any more."""
        self._store.delete(keys.erasing(receipt.tenant, receipt.subject_id))

    def drop_receipts(self, before: float) -> None:
        """Forget subjects that were deleted before this time, in seconds since 1970, and are erased.

        While something may be left the receipt stays: without it that would be back.
        """
        for key in list(self._store.list(keys.ERASURES)):
            _, tenant, name = key.split("/")
            receipt = self._get(key, Receipt)
            is_over = not self._store.exists(keys.erasing(tenant, name.removesuffix(".json")))
            receipt = receipt or self.receipt(tenant, name.removesuffix(".json"))
            if receipt and receipt.deleted_at < before and is_over:
                self._store.delete(key)

    def _put(self, key: str, record: Record) -> None:
        self._store.put(key, dump(record), content_type="application/json")

    def _get(self, key: str, kind: type[RecordT]) -> RecordT | None:
        try:
            return load(self._store, key, kind)
        except ObjectNotFound:
            return None


def _own(tenant: str, key: str) -> str:
    """The key itself. Raises SubjectNotFound when a tenant's photos and weights do not lie there."""
    if not key.startswith((keys.subjects(tenant), keys.jobs(tenant))):
        raise SubjectNotFound("The subject was deleted.")
    return key
