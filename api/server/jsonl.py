"""Batches as JSONL: a generation in each line, read a line at a time, however large the body is."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Iterator

from anyio import to_thread
from fastapi import Depends, Request
from pydantic import ValidationError
from starlette.requests import ClientDisconnect

from api.server.errors import InvalidFields, MalformedRequest, invalid_fields
from api.server.model import Model
from api.server.requests import generate_request
from core.batches.records import PART, ItemWarning
from core.batches.upload import BatchUpload
from core.errors import HyperDreamBoothError, SubjectNotFound
from hyperdreambooth.schemas.batches import BatchItem

KINDS = ("application/jsonl", "application/x-ndjson")
MAX_LINE = 32 * 1024
"""Bytes in a line: what is longer is refused, and not kept while it is read."""
Line = tuple[int, bytes | None]
"""A line's number, from 1, and the line; None: it is too long."""


def media_type(request: Request) -> str:
    """What the body says it is, in small letters and without parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def describe_body(request: Request) -> None:
    """Before Idempotent: JSONL is not to be read as a whole, and the response names none of the subjects."""
    request.state.body_is_streamed = media_type(request) in KINDS
    request.state.response_names_no_subject = True


BatchBody = Depends(describe_body)


class Lines:
    """Cuts a body into lines as it comes in: `push` what has come in, `end` after the last of it. Blank ones count."""

    def __init__(self) -> None:
        self._number = 0
        self._rest = bytearray()
        self._too_long = False

    def push(self, data: bytes) -> Iterator[Line]:
        """The lines that have become whole."""
        start = 0
        while (end := data.find(b"\n", start)) >= 0:
            self._keep(data[start:end])
            start = end + 1
            yield from self.end()
        self._keep(data[start:])

    def end(self) -> Iterator[Line]:
        """The line that has come in so far, unless it is blank."""
        self._number += 1
        line = None if self._too_long else bytes(self._rest).strip()
        self._rest.clear()
        self._too_long = False
        if line != b"":
            yield self._number, line

    def _keep(self, piece: bytes) -> None:
        self._too_long = self._too_long or len(self._rest) + len(piece) > MAX_LINE
        if self._too_long:
            self._rest.clear()
        else:
            self._rest += piece


async def add_lines(request: Request, upload: BatchUpload, model: Model) -> str:
    """Add what the lines ask for, a hundred at a time; gives a hash of the body. Raises MalformedRequest."""
    digest = hashlib.sha256()
    lines, some = Lines(), list[Line]()
    async for data in _pieces(request):
        digest.update(data)
        for line in lines.push(data):
            some.append(line)
            if len(some) == PART:
                await to_thread.run_sync(_add_all, upload, some, model)
                some = []
    await to_thread.run_sync(_add_all, upload, [*some, *lines.end()], model)
    return digest.hexdigest()


def add_item(upload: BatchUpload, item: BatchItem, model: Model, line: int | None = None) -> None:
    """Add what one item asks for, or why it cannot be done."""
    try:
        request, warnings = generate_request(item, upload.subject, model)
    except (SubjectNotFound, InvalidFields) as error:
        _refuse(upload, line, error, item.custom_id)
        return
    kept = tuple(ItemWarning(**warning.model_dump()) for warning in warnings)
    upload.add(request, line=line, custom_id=item.custom_id, warnings=kept)


def _add_all(upload: BatchUpload, lines: list[Line], model: Model) -> None:
    for number, line in lines:
        if line is None:
            upload.refuse(MalformedRequest(f"The line has more than {MAX_LINE >> 10} KB."), line=number)
            continue
        try:
            item = BatchItem.model_validate_json(line)
        except ValidationError as error:
            _refuse(upload, number, _in_line(invalid_fields(error.errors())))
        else:
            add_item(upload, item, model, number)


def _refuse(upload: BatchUpload, number: int | None, error: HyperDreamBoothError, custom_id: str | None = None) -> None:
    problems = error.problems if isinstance(error, InvalidFields) else ()
    fields = tuple((each.field, each.message) for each in problems)
    upload.refuse(error, fields, line=number, custom_id=custom_id)


def _in_line(error: HyperDreamBoothError) -> HyperDreamBoothError:
    return MalformedRequest("The line is not valid JSON.") if isinstance(error, MalformedRequest) else error


async def _pieces(request: Request) -> AsyncIterator[bytes]:
    try:
        async for data in request.stream():
            yield data
    except ClientDisconnect:
        raise MalformedRequest("The connection was closed before the body was complete.") from None
