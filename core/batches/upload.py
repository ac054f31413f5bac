"""A batch that is being sent: its items go to the store a part at a time, and become a batch when all are there."""

from __future__ import annotations

import time
from functools import lru_cache, partial

from core.batches.service import PART, Batch, Batches, Item, ItemError, Letter, Standing, Tally
from core.errors import HyperDreamBoothError, InvalidInput, QueueFull, SubjectNotFound, SubjectNotReady
from core.ids import new_id
from core.jobs.service import Jobs
from core.records import MAX_ITEMS, GenerateRequest
from core.storage import keys

_REMEMBERED = 256
"""Subjects that are not read again while a batch is being sent."""


class BatchUpload:
    """Items are added one by one, then it is committed or discarded. A part of a hundred items is in memory."""

    def __init__(self, jobs: Jobs, tenant: str, *, open_limit: int, request_id: str = "") -> None:
        """Raises QueueFull when the tenant has `open_limit` batches that are not over."""
        self._batches = Batches(jobs)
        self._tenant, self._request_id = tenant, request_id
        self._store = jobs.archive.store
        if sum(1 for _ in self._store.list(f"{keys.OPEN_BATCHES}{tenant}/")) >= open_limit:
            raise QueueFull(f"{open_limit} batches are not over yet; wait for one, or cancel one.", retry_after=60.0)
        self.subject = lru_cache(_REMEMBERED)(partial(jobs.subject, tenant))
        """A subject by its id. Raises SubjectNotFound."""
        self._weights_key = lru_cache(_REMEMBERED)(partial(jobs.weights_key, tenant))
        self._jobs = jobs
        self.batch_id = new_id("bat")
        self._part: list[Item] = []
        self._letters: list[Letter] = []
        self._subject_ids: set[str] = set()
        self._refusal: HyperDreamBoothError | None = None
        # First of all: should this process die, the scheduler finds what was left, and takes it away.
        self._store.put(self._marker, b"")

    def add(self, request: GenerateRequest, *, line: int | None = None, custom_id: str | None = None) -> None:
        """Add an item. It is refused when its subjects are not there or not ready. Raises InvalidInput: too many."""
        try:
            pinned = request.pinned(partial(self._weights_key, stage=request.stage))
        except (SubjectNotFound, SubjectNotReady) as error:
            self.refuse(error, line=line, custom_id=custom_id)
            return
        self._add(Item(index=len(self._letters), line=line, custom_id=custom_id, request=pinned), Letter.WAITING)

    def refuse(
        self,
        error: HyperDreamBoothError,
        fields: tuple[tuple[str | None, str], ...] = (),
        *,
        line: int | None = None,
        custom_id: str | None = None,
    ) -> None:
        """Add an item that is not done, and why. Raises InvalidInput: too many."""
        self._refusal = self._refusal or error
        names_somebody = isinstance(error, SubjectNotFound | SubjectNotReady)  # who can be deleted before the batch is
        told = ItemError(code=error.code, detail=error.title() if names_somebody else error.detail, fields=fields)
        self._add(Item(index=len(self._letters), line=line, custom_id=custom_id, error=told), Letter.INVALID)

    def commit(self) -> Standing:
        """Make it a batch. Raises InvalidInput when it is empty; when nothing can be done, what the first item has."""
        if Letter.WAITING not in self._letters:
            raise self._refusal or InvalidInput("Send at least one item.")
        self._write_part()
        batch = Batch(
            id=self.batch_id,
            tenant=self._tenant,
            created_at=time.time(),
            total=len(self._letters),
            request_id=self._request_id,
        )
        tally = Tally(letters="".join(self._letters))
        self._batches.put_tally(self._tenant, self.batch_id, tally)
        for subject_id in self._subject_ids:  # whoever is deleted from here on finds the marker of this batch
            if self._jobs.archive.receipt(self._tenant, subject_id):
                self._store.put(f"{keys.blanked(self._tenant, self.batch_id)}{subject_id}", b"")
        self._store.put(keys.batch(self._tenant, self.batch_id), batch.model_dump_json().encode())
        return Standing(batch, tally, is_canceled=False)

    def discard(self) -> None:
        """Leave nothing of it."""
        for subject_id in self._subject_ids:
            self._store.delete(f"{keys.subject_batches(self._tenant, subject_id)}{self.batch_id}")
        self._store.delete(keys.batch(self._tenant, self.batch_id))
        self._store.delete_prefix(keys.batch_items(self._tenant, self.batch_id))
        self._store.delete(self._marker)

    @property
    def _marker(self) -> str:
        return f"{keys.OPEN_BATCHES}{self._tenant}/{self.batch_id}"

    def _add(self, item: Item, letter: Letter) -> None:
        if item.index >= MAX_ITEMS:
            raise InvalidInput(f"A batch has at most {MAX_ITEMS} items; send the others as another batch.")
        self._part.append(item)
        self._letters.append(letter)
        if len(self._part) == PART:
            self._write_part()

    def _write_part(self) -> None:
        if not self._part:
            return
        named = {subject_id for item in self._part if item.request for subject_id in item.request.subject_ids}
        for subject_id in named - self._subject_ids:
            self._store.put(f"{keys.subject_batches(self._tenant, subject_id)}{self.batch_id}", b"")
            self._subject_ids.add(subject_id)
        part = (len(self._letters) - 1) // PART
        self._batches.put_part(self._tenant, self.batch_id, part, self._part)
        self._part = []
