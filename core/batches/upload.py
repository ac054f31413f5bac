"""A batch that is being sent: its items go to the store a part at a time, and become a batch when all are there."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial

from core import tracing
from core.batches.documents import BatchDocuments
from core.batches.records import PART, Batch, BatchState, Item, ItemError, ItemState, ItemStates, ItemWarning
from core.errors import HyperDreamBoothError, InvalidInput, QueueFull, SubjectNotFound, SubjectNotReady
from core.ids import new_id
from core.jobs.demand import FORMAT
from core.records import MAX_ITEMS, GenerateRequest
from core.subjects.service import SubjectService

_REMEMBERED = 256
"""Subjects that are not read again while a batch is being sent."""


@dataclass(frozen=True)
class UploadLimits:
    """Batches of a tenant that are not over, and the work that a new one may be, as `work_of` its items tells it."""

    open_batches: int
    pictures: float = math.inf
    work_of: Callable[[GenerateRequest], float] = lambda request: request.n


class BatchUpload:
    """Items are added one by one, then it is committed or discarded. A part of a hundred items is in memory."""

    def __init__(
        self,
        documents: BatchDocuments,
        subjects: SubjectService,
        tenant: str,
        limits: UploadLimits,
        *,
        request_id: str = "",
    ) -> None:
        """Raises QueueFull when the tenant has too many batches that are not over."""
        most = limits.open_batches
        if documents.count_open(tenant) >= most:
            raise QueueFull(f"{most} batches are not over yet; wait for one, or cancel one.", retry_after=60.0)
        self._limits, self._work = limits, 0.0
        self._documents, self._subjects = documents, subjects
        self._tenant, self._request_id = tenant, request_id
        self.subject = lru_cache(_REMEMBERED)(partial(subjects.get, tenant))
        """A subject by its id. Raises SubjectNotFound."""
        self._weights_key = lru_cache(_REMEMBERED)(partial(subjects.weights_key, tenant))
        self.batch_id = new_id("bat")
        self._part: list[Item] = []
        self._states: list[ItemState] = []
        self._subject_ids: set[str] = set()
        self._refusal: HyperDreamBoothError | None = None
        # First of all: should this process die, the scheduler finds what was left, and takes it away.
        self._documents.open(tenant, self.batch_id)

    def add(
        self,
        request: GenerateRequest,
        *,
        line: int | None = None,
        custom_id: str | None = None,
        warnings: tuple[ItemWarning, ...] = (),
    ) -> None:
        """Add an item. It is refused when its subjects are not there or not ready.

        Raises InvalidInput: too many, or too much work.
        """
        work = self._limits.work_of(request)
        self._work += work
        if self._work > self._limits.pictures:
            raise InvalidInput(
                f"A batch is at most as much work as {self._limits.pictures:,.0f} pictures of the model's own size and "
                "steps; send the others as another batch."
            )
        try:
            pinned = request.pinned(partial(self._weights_key, stage=request.stage))
            model = self.subject(request.subject_ids[0]).bundle_fingerprint or ""
        except (SubjectNotFound, SubjectNotReady) as error:
            self.refuse(error, line=line, custom_id=custom_id)
            return
        item = Item(
            index=len(self._states),
            line=line,
            custom_id=custom_id,
            request=pinned,
            warnings=warnings,
            work=work,
            model=model,
            format=FORMAT,
        )
        self._add(item, ItemState.WAITING)

    def refuse(
        self,
        error: HyperDreamBoothError,
        fields: tuple[tuple[str | None, str], ...] = (),
        *,
        line: int | None = None,
        custom_id: str | None = None,
    ) -> None:
        """Add an item that cannot be done, and why. Raises InvalidInput: too many."""
        self._refusal = self._refusal or error
        # Of a subject, which can be deleted before the batch is, nothing but the kind of error is kept.
        names_subject = isinstance(error, SubjectNotFound | SubjectNotReady)
        kept = ItemError(code=error.code, detail=error.title() if names_subject else error.detail, fields=fields)
        self._add(Item(index=len(self._states), line=line, custom_id=custom_id, error=kept), ItemState.INVALID)

    def commit(self) -> BatchState:
        """Make it a batch. Raises InvalidInput when it is empty; when nothing can be done, what the first item has."""
        if ItemState.WAITING not in self._states:
            raise self._refusal or InvalidInput("Send at least one item.")
        self._write_part()
        batch = Batch(
            id=self.batch_id,
            tenant=self._tenant,
            created_at=time.time(),
            total=len(self._states),
            request_id=self._request_id,
            traceparent=tracing.current(),
        )
        for subject_id in self._subject_ids:  # whoever is deleted from here on finds the marker of this batch
            if self._subjects.is_deleted(self._tenant, subject_id):
                self._documents.blank(self._tenant, self.batch_id, subject_id)
        states = ItemStates(states="".join(self._states))
        self._documents.put(batch, states)
        return BatchState(batch, states, is_canceled=False)

    def discard(self) -> None:
        """Leave nothing of it."""
        for subject_id in self._subject_ids:
            self._documents.unmark_subject(self._tenant, subject_id, self.batch_id)
        self._documents.discard(self._tenant, self.batch_id)

    def _add(self, item: Item, state: ItemState) -> None:
        if item.index >= MAX_ITEMS:
            raise InvalidInput(f"A batch has at most {MAX_ITEMS} items; send the others as another batch.")
        self._part.append(item)
        self._states.append(state)
        if len(self._part) == PART:
            self._write_part()

    def _write_part(self) -> None:
        if not self._part:
            return
        named = {subject_id for item in self._part for subject_id in item.subject_ids}
        for subject_id in named - self._subject_ids:
            self._documents.mark_subject(self._tenant, subject_id, self.batch_id)
            self._subject_ids.add(subject_id)
        part = (len(self._states) - 1) // PART
        self._documents.put_part(self._tenant, self.batch_id, part, self._part)
        self._part = []
