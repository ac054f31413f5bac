"""Server-sent events, read from bytes as they arrive (WHATWG HTML, 9.2)."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError

from hyperdreambooth.schemas import JobEvent


class StreamedJobEvent(JobEvent):
    """An event of a job with its id in the stream, which `events(last_event_id=...)` goes on after."""

    id: str


class EventParser:
    """Bytes in, events out; it outlives connections.

    `last_event_id` is the header of the next connection; `pause` is how many seconds to wait before it.
    """

    def __init__(self, last_event_id: str = "") -> None:
        self.last_event_id = last_event_id
        self.pause = 1.0
        self.begin()

    def begin(self) -> None:
        """Begin a new connection: an unfinished event of the one before is dropped."""
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")("replace")
        self._rest = ""
        self._skip_newline = False
        self._id = self.last_event_id
        self._data: list[str] = []

    def feed(self, chunk: bytes) -> Iterator[StreamedJobEvent]:
        """The events that this chunk completes."""
        for line in self._lines(self._decoder.decode(chunk)):
            if line:
                self._read(line)
            elif (event := self._dispatch()) is not None:
                yield event

    def _lines(self, text: str) -> Iterator[str]:
        """Whole lines. They end with CR, LF or both, and the two may come in different chunks."""
        if not text:
            return
        if self._skip_newline:
            text = text.removeprefix("\n")
        self._skip_newline = text.endswith("\r")
        *lines, self._rest = (self._rest + text).replace("\r\n", "\n").replace("\r", "\n").split("\n")
        yield from lines

    def _read(self, line: str) -> None:
        """Take one field. The event's name is not needed: it is in the data as well."""
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "id" and "\0" not in value:
            self._id = value
        elif name == "retry" and value.isascii() and value.isdecimal():
            self.pause = int(value) / 1000

    def _dispatch(self) -> StreamedJobEvent | None:
        """The event; None for one without data, or of a kind that only a newer service knows."""
        self.last_event_id = self._id
        data = "\n".join(self._data)
        self._data = []
        try:
            return StreamedJobEvent.model_validate({**_object(data), "id": self._id}) if data else None
        except ValidationError:
            return None


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
