"""Batches in the object store. A batch is there once its document is, which is written last."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import TypeVar

from pydantic import ValidationError

from core.batches.records import Batch, DeletedBatch, Item, ItemStates
from core.errors import BatchNotFound, ObjectNotFound
from core.records import Record
from core.storage import Store, keys
from core.storage.stored import dump, load, set_aside

RecordT = TypeVar("RecordT", bound=Record)


class BatchDocuments:
    """Batches in the store. Every method raises StoreUnavailable."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def put(self, batch: Batch, states: ItemStates) -> None:
        """Write the states of its items, and then the document."""
        self.put_states(batch.tenant, batch.id, states)
        self._store.put(keys.batch(batch.tenant, batch.id), dump(batch))

    def find(self, tenant: str, batch_id: str) -> Batch | None:
        """The batch, or None; also one that is being deleted."""
        return self._get(keys.batch(tenant, batch_id), Batch)

    def ids(self, tenant: str) -> list[str]:
        """The ids of a tenant's batches, oldest first."""
        prefix = keys.batches(tenant)
        return [key.removeprefix(prefix).removesuffix(".json") for key in self._store.list(prefix)]

    def states(self, batch: Batch) -> ItemStates:
        """The states of its items. Raises BatchNotFound: it was erased meanwhile."""
        states = self._get(keys.batch_states(batch.tenant, batch.id), ItemStates)
        if states is None:
            raise BatchNotFound(f"There is no batch {batch.id}.")
        return states

    def put_states(self, tenant: str, batch_id: str, states: ItemStates) -> None:
        """Write the states of its items."""
        self._store.put(keys.batch_states(tenant, batch_id), dump(states))

    def part(self, tenant: str, batch_id: str, part: int) -> list[Item]:
        """The items of a part; none when it was erased."""
        key = keys.batch_part(tenant, batch_id, part)
        try:
            data = self._store.get(key)
            return [Item.model_validate_json(line) for line in data.splitlines()]
        except ObjectNotFound:
            return []
        except ValidationError:
            set_aside(self._store, key, data)
            return []

    def put_part(self, tenant: str, batch_id: str, part: int, items: Sequence[Item]) -> None:
        """Write a part."""
        lines = "".join(f"{item.model_dump_json()}\n" for item in items)
        self._store.put(keys.batch_part(tenant, batch_id, part), lines.encode(), content_type="application/jsonl")

    def cancel(self, batch: Batch) -> None:
        """Note that nothing more of it is to be done."""
        self._store.put(keys.batch_canceled(batch.tenant, batch.id), b"")

    def is_canceled(self, batch: Batch) -> bool:
        """Whether nothing more of it is to be done."""
        return self._store.exists(keys.batch_canceled(batch.tenant, batch.id))

    def open(self, tenant: str, batch_id: str) -> None:
        """Note that the scheduler has something to do with it."""
        self._store.put(f"{keys.OPEN_BATCHES}{tenant}/{batch_id}", b"")

    def close(self, batch: Batch) -> None:
        """Note that all its items are over; it stays open when a subject was deleted a moment before."""
        name = f"{batch.tenant}/{batch.id}"
        self._store.put(f"{keys.OVER_BATCHES}{name}", b"")
        self._store.delete(f"{keys.OPEN_BATCHES}{name}")
        if self.blanked(batch.tenant, batch.id):
            self.open(batch.tenant, batch.id)

    def count_open(self, tenant: str) -> int:
        """How many of a tenant's batches are not over."""
        return sum(1 for _ in self._store.list(f"{keys.OPEN_BATCHES}{tenant}/"))

    def marked(self, prefix: str) -> Iterator[tuple[str, str]]:
        """(tenant, batch) of the markers under one of the prefixes of storage/keys.py."""
        for key in self._store.list(prefix):
            tenant, batch_id = key.removeprefix(prefix).split("/")
            yield tenant, batch_id

    def mark_subject(self, tenant: str, subject_id: str, batch_id: str) -> None:
        """Note that the batch has items about the subject."""
        self._store.put(f"{keys.subject_batches(tenant, subject_id)}{batch_id}", b"")

    def unmark_subject(self, tenant: str, subject_id: str, batch_id: str) -> None:
        """The batch has no items about the subject any more."""
        self._store.delete(f"{keys.subject_batches(tenant, subject_id)}{batch_id}")

    def blank(self, tenant: str, batch_id: str, subject_id: str) -> None:
        """Have the scheduler take out what the batch has about a subject."""
        self._store.put(f"{keys.blanked(tenant, batch_id)}{subject_id}", b"")

    def blank_everywhere(self, tenant: str, subject_id: str) -> None:
        """The same for all batches that have items about it: those that are over are opened again."""
        prefix = keys.subject_batches(tenant, subject_id)
        for marker in list(self._store.list(prefix)):
            batch_id = marker.removeprefix(prefix)
            self.blank(tenant, batch_id, subject_id)
            self.open(tenant, batch_id)
            self._store.delete(marker)

    def blanked(self, tenant: str, batch_id: str) -> set[str]:
        """The subjects that the scheduler has to take out of the batch."""
        prefix = keys.blanked(tenant, batch_id)
        return {key.removeprefix(prefix) for key in self._store.list(prefix)}

    def end_blanking(self, tenant: str, batch_id: str, subject_id: str) -> None:
        """There is nothing about the subject in the batch any more."""
        self._store.delete(f"{keys.blanked(tenant, batch_id)}{subject_id}")

    def is_deleted(self, tenant: str, batch_id: str) -> bool:
        """Whether it is being deleted."""
        return self._store.exists(f"{keys.DELETED_BATCHES}{tenant}/{batch_id}")

    def deleted(self, tenant: str, batch_id: str, prefix: str = keys.DELETED_BATCHES) -> DeletedBatch:
        """What is known of a batch that is being deleted, or has late jobs (`prefix` LATE_BATCHES)."""
        return self._get(f"{prefix}{tenant}/{batch_id}", DeletedBatch) or DeletedBatch(at=time.time())

    def put_deleted(self, tenant: str, batch_id: str, deleted: DeletedBatch) -> None:
        """Note that it is being deleted."""
        self._store.put(f"{keys.DELETED_BATCHES}{tenant}/{batch_id}", dump(deleted))

    def end_deletion(self, tenant: str, batch_id: str) -> None:
        """It is erased; its late jobs are to be erased once more."""
        name = f"{tenant}/{batch_id}"
        self._store.put(f"{keys.LATE_BATCHES}{name}", self._store.get(f"{keys.DELETED_BATCHES}{name}"))
        self._store.delete(f"{keys.DELETED_BATCHES}{name}")

    def end_late(self, tenant: str, batch_id: str) -> None:
        """No worker can write to its jobs any more."""
        self._store.delete(f"{keys.LATE_BATCHES}{tenant}/{batch_id}")

    def drop(self, tenant: str, batch_id: str) -> None:
        """Remove the batch. Its document goes last: as long as that is there, this is done again."""
        name = f"{tenant}/{batch_id}"
        self._store.delete(f"{keys.OPEN_BATCHES}{name}")
        self._store.delete(f"{keys.OVER_BATCHES}{name}")
        self._store.delete_prefix(keys.batch_items(tenant, batch_id))
        self._store.delete(keys.batch(tenant, batch_id))

    def discard(self, tenant: str, batch_id: str) -> None:
        """Remove what was sent of a batch that did not become one. Its marker goes last."""
        self._store.delete(keys.batch(tenant, batch_id))
        self._store.delete_prefix(keys.batch_items(tenant, batch_id))
        self._store.delete(f"{keys.OPEN_BATCHES}{tenant}/{batch_id}")

    def _get(self, key: str, kind: type[RecordT]) -> RecordT | None:
        try:
            return load(self._store, key, kind)
        except ObjectNotFound:
            return None
