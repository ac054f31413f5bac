"""Batches: many generations at once."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

import anyio

from hyperdreambooth.client import forms
from hyperdreambooth.client.aio.connection import AsyncConnection
from hyperdreambooth.client.callbacks import acall
from hyperdreambooth.client.options import GenerateOptions
from hyperdreambooth.client.refs import BatchRef, SubjectRef
from hyperdreambooth.client.request import answer_as, change, content, create, get, id_of, lines_as
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


class AsyncBatches(AsyncConnection):
    """The methods for batches."""

    async def create_batch(
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
        return await self._send(create("batches", read=answer_as(BatchAnswer), json=body))

    async def packs(self) -> list[PackAnswer]:
        """Named lists of prompts, for `create_batch`: those of the model, then your own."""
        return (await self._send(get("packs", read=answer_as(PackList)))).packs

    async def create_pack(self, name: str, prompts: Sequence[str]) -> PackAnswer:
        """Keep a list of prompts under a name."""
        body = {"name": name, "prompts": list(prompts)}
        return await self._send(create("packs", read=answer_as(PackAnswer), json=body))

    async def delete_pack(self, pack: str | PackAnswer) -> None:
        """Forget one of your own packs."""
        await self._send(change("DELETE", "packs", id_of(pack), read=content, repeatable=True))

    async def upload_batch(self, lines: bytes | Path) -> BatchAnswer:
        """Start the generations of a JSONL file, one in each line."""
        return await self._send(create("batches", read=answer_as(BatchAnswer), **forms.batch_file(lines)))

    async def batches(self) -> AsyncIterator[BatchAnswer]:
        """All batches, newest first, read a page at a time."""
        async for page in self._pages("batches", read=answer_as(BatchPage)):
            for batch in page.batches:
                yield batch

    async def batch(self, batch: BatchRef) -> BatchAnswer:
        """The batch: its status, and how many of its items have each status."""
        return await self._send(get("batches", id_of(batch), read=answer_as(BatchAnswer)))

    async def wait_for_batch(
        self,
        batch: BatchRef,
        *,
        on_progress: Callable[[BatchAnswer], Any] | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - the blocking client has it
    ) -> BatchAnswer:
        """Wait until all items are over, however they ended; `on_progress` is called with the batch when it changes.

        Raises also TimeoutError after `timeout` seconds: the batch goes on.
        """
        waiter = BatchWaiter(batch, timeout)
        while True:
            found = await self.batch(batch)
            if waiter.has_changed(found) and on_progress:
                await acall(on_progress, found)
            if found.finished_at is not None:
                return found
            await anyio.sleep(waiter.pause())

    async def batch_items(self, batch: BatchRef, *, status: ItemStatus | None = None) -> AsyncIterator[BatchItemAnswer]:
        """A batch's items in their order, read a page at a time; only those with this status."""
        async for page in self._pages("batches", id_of(batch), "items", read=answer_as(BatchItemPage), status=status):
            for item in page.items:
                yield item

    async def batch_results(self, batch: BatchRef) -> list[BatchItemAnswer]:
        """All items of a batch, in one request."""
        return await self._send(get("batches", id_of(batch), "results", read=lines_as(BatchItemAnswer)))

    async def cancel_batch(self, batch: BatchRef) -> BatchAnswer:
        """Ask a batch to stop; the pictures that are made stay."""
        read = answer_as(BatchAnswer)
        return await self._send(change("POST", "batches", id_of(batch), "cancel", read=read, repeatable=False))

    async def delete_batch(self, batch: BatchRef) -> BatchDeleted:
        """Erase a batch, its prompts and its pictures."""
        read = answer_as(BatchDeleted)
        return await self._send(change("DELETE", "batches", id_of(batch), read=read, repeatable=False))
