"""Subjects in the object store: their documents, photos and weights, and the receipts of those that were deleted."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar

from core.errors import ObjectNotFound, SubjectNotFound
from core.ids import is_id
from core.records import Job, Receipt, Record, Subject
from core.storage import Store, keys

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

    def get(self, tenant: str, subject_id: str) -> Subject:
        """The subject's document. Raises SubjectNotFound, also when only its receipt is left."""
        subject = self._get(keys.document(tenant, subject_id), Subject) if is_id(subject_id, "sub") else None
        if subject is None or self.is_deleted(tenant, subject_id):
            raise SubjectNotFound(f"There is no subject {subject_id[:40]}.")
        return subject

    def check(self, tenant: str, subject_ids: Iterable[str]) -> None:
        """Raises SubjectNotFound when one of them is not there, or is being deleted."""
        for subject_id in subject_ids:
            self.get(tenant, subject_id)

    def exists(self, tenant: str, subject_id: str) -> bool:
        """Whether there is a document."""
        return self._store.exists(keys.document(tenant, subject_id))

    def newest_first(self, tenant: str, *, after: str = "") -> Iterator[Subject]:
        """The tenant's subjects; those older than the subject `after`. All names are read before the first is."""
        prefix, end = keys.subjects(tenant), "/subject.json"
        names = [key.removeprefix(prefix).removesuffix(end) for key in self._store.list(prefix) if key.endswith(end)]
        for subject_id in reversed(names):
            if not after or subject_id < after:
                with contextlib.suppress(SubjectNotFound):
                    yield self.get(tenant, subject_id)

    def read(self, key: str) -> bytes:
        """A photo or weights of a subject, by their key. Raises SubjectNotFound: it was deleted meanwhile."""
        try:
            return self._store.get(key)
        except ObjectNotFound:
            raise SubjectNotFound("The subject was deleted.") from None

    def has(self, key: str) -> bool:
        """Whether there is such a photo, or such weights."""
        return self._store.exists(key)

    def drop_photos(self, subject: Subject) -> None:
        """Remove the photos that the document names."""
        for key in subject.photos:
            self._store.delete(key)

    def drop_photos_of(self, job: Job) -> None:
        """Remove the photos that a job came with."""
        self._store.delete_prefix(keys.photos(job.tenant, job.subject_id, job.id))

    def drop(self, tenant: str, subject_id: str) -> None:
        """Remove all that the subject has besides its jobs."""
        self._store.delete_prefix(keys.subject(tenant, subject_id))

    def put_receipt(self, receipt: Receipt) -> None:
        """Write the receipt, and note that the subject is to be erased (again) until no job can write to it."""
        self._put(keys.erasure(receipt.tenant, receipt.subject_id), receipt)
        self._store.put(keys.erasing(receipt.tenant, receipt.subject_id), b"")

    def receipt(self, tenant: str, subject_id: str) -> Receipt | None:
        """The receipt of a subject that was deleted, or None."""
        return self._get(keys.erasure(tenant, subject_id), Receipt)

    def is_deleted(self, tenant: str, subject_id: str) -> bool:
        """Whether the subject was deleted, in the last day."""
        return self._store.exists(keys.erasure(tenant, subject_id))

    def receipts(self, job: Job) -> list[Receipt]:
        """The receipts of those of a job's subjects that were deleted."""
        found = (self.receipt(job.tenant, subject_id) for subject_id in job.subject_ids)
        return [receipt for receipt in found if receipt]

    def erasing(self) -> Iterator[Receipt]:
        """The receipts of subjects that a late job may still write to."""
        for key in self._store.list(keys.ERASING):
            _, tenant, subject_id = key.split("/")
            if receipt := self.receipt(tenant, subject_id):
                yield receipt

    def end_erasing(self, receipt: Receipt) -> None:
        """No job can write to the subject any more."""
        self._store.delete(keys.erasing(receipt.tenant, receipt.subject_id))

    def drop_receipts(self, before: float) -> None:
        """Forget subjects that were deleted before this time, in seconds since 1970."""
        for key in self._store.list(keys.ERASURES):
            receipt = self._get(key, Receipt)
            if receipt and receipt.deleted_at < before:
                self._store.delete(key)

    def _put(self, key: str, record: Record) -> None:
        self._store.put(key, record.model_dump_json().encode(), content_type="application/json")

    def _get(self, key: str, kind: type[RecordT]) -> RecordT | None:
        try:
            return kind.model_validate_json(self._store.get(key))
        except ObjectNotFound:
            return None
