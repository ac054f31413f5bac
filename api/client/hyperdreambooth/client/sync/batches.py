# Made by `make generate` from aio/batches.py: change that.
"""Batches: many generations at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

from hyperdreambooth.client import forms
from hyperdreambooth.client.callbacks import call
from hyperdreambooth.client.options import GenerateOptions
from hyperdreambooth.client.refs import BatchRef, SubjectRef
from hyperdreambooth.client.request import answer_as, change, content, create, get, id_of, lines_as
from hyperdreambooth.client.sync.connection import Connection
from hyperdreambooth.client.waiting import BatchWaiter
from hyperdreambooth.schemas import (
    BatchAnswer,
    BatchDeleted,
    BatchItemAnswer,
    BatchItemPage,
    BatchPage,
    ItemStatus,
    PackAnswer,
    PackList,
)


class Batches(Connection):
    """The methods for batches."""

    def create_batch(
        self,
        prompts: Sequence[str] = (),
        subjects: Sequence[SubjectRef] = (),
        *,
        items: Sequence[Mapping[str, Any]] = (),
        **defaults: Unpack[GenerateOptions],
    ) -> BatchAnswer:
        """Start every prompt with every subject, and `items`: generations, which may have a `custom_id`.

        `defaults` are the options of all that have none of their own.
        """
        body = forms.batch(prompts, subjects, items, defaults)
        return self._send(create("batches", read=answer_as(BatchAnswer), json=body))

    def packs(self) -> list[PackAnswer]:
        """Named lists of prompts, for `create_batch`: those of the model, then your own."""
        return (self._send(get("packs", read=answer_as(PackList)))).packs

    def create_pack(self, name: str, prompts: Sequence[str]) -> PackAnswer:
        """Keep a list of prompts under a name."""
        body = {"name": name, "prompts": list(prompts)}
        return self._send(create("packs", read=answer_as(PackAnswer), json=body))

    def delete_pack(self, pack: str | PackAnswer) -> None:
        """Forget one of your own packs."""
        self._send(change("DELETE", "packs", id_of(pack), read=content, repeatable=True))

    def upload_batch(self, lines: bytes | Path) -> BatchAnswer:
        """Start the generations of a JSONL file, one in each line."""
        return self._send(create("batches", read=answer_as(BatchAnswer), **forms.batch_file(lines)))

    def batches(self) -> Iterator[BatchAnswer]:
        """All batches, newest first, read a page at a time."""
        for page in self._pages("batches", read=answer_as(BatchPage)):
            for batch in page.batches:
                yield batch

    def batch(self, batch: BatchRef) -> BatchAnswer:
        """The batch: its status, and how many of its items have each status."""
        return self._send(get("batches", id_of(batch), read=answer_as(BatchAnswer)))

    def wait_for_batch(
        self,
        batch: BatchRef,
        *,
        on_progress: Callable[[BatchAnswer], Any] | None = None,
        timeout: float | None = None,
    ) -> BatchAnswer:
        """Wait until all items are over, however they ended; `on_progress` is called with the batch when it changes.

        Raises also TimeoutError after `timeout` seconds: the batch goes on.
        """
        waiter = BatchWaiter(batch, timeout)
        while True:
            found = self.batch(batch)
            if waiter.has_changed(found) and on_progress:
                call(on_progress, found)
            if found.finished_at is not None:
                return found
            time.sleep(waiter.pause())

    def batch_items(self, batch: BatchRef, *, status: ItemStatus | None = None) -> Iterator[BatchItemAnswer]:
        """A batch's items in their order, read a page at a time; only those with this status."""
        for page in self._pages("batches", id_of(batch), "items", read=answer_as(BatchItemPage), status=status):
            for item in page.items:
                yield item

    def batch_results(self, batch: BatchRef) -> list[BatchItemAnswer]:
        """All items of a batch, in one request."""
        return self._send(get("batches", id_of(batch), "results", read=lines_as(BatchItemAnswer)))

    def cancel_batch(self, batch: BatchRef) -> BatchAnswer:
        """Ask a batch to stop; the pictures that are made stay."""
        read = answer_as(BatchAnswer)
        return self._send(change("POST", "batches", id_of(batch), "cancel", read=read, repeatable=False))

    def delete_batch(self, batch: BatchRef) -> BatchDeleted:
        """Erase a batch, its prompts and its pictures."""
        read = answer_as(BatchDeleted)
        return self._send(change("DELETE", "batches", id_of(batch), read=read, repeatable=False))
