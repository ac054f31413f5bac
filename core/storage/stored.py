"""Records in the store: JSON with the number of its format. One that cannot be read is set aside, and hurts no other.

unreadable/{key}         an empty object for each record that was set aside; where it holds nothing personal, the record
{key}.unreadable         the record itself, where it belongs to a subject or a job, and is erased with it
"""

from __future__ import annotations

import logging
import re
from itertools import islice
from typing import TypeVar

from pydantic import ValidationError

from core.errors import ObjectNotFound, StoreUnavailable
from core.records import Record
from core.storage import keys
from core.storage.store import Store

FORMAT = 1
"""What this version writes. It reads all formats up to this one."""
MOST_SET_ASIDE = 100
"""With so many the fault is not the records': then none is moved, and who reads one gets an error."""
_FORMAT = re.compile(rb'\{"format":([0-9]{1,9})[,}]')
_log = logging.getLogger(__name__)
RecordT = TypeVar("RecordT", bound=Record)


def dump(record: Record) -> bytes:
    """The record as JSON, with its format."""
    fields = record.model_dump_json()[1:]
    return f'{{"format":{FORMAT}{"" if fields == "}" else ","}{fields}'.encode()


def load(store: Store, key: str, kind: type[RecordT]) -> RecordT:
    """The record under a key. Raises ObjectNotFound when there is none, or none that can be read: it is set aside then.

    Raises StoreUnavailable when a newer version wrote it in a format that is not known here.
    """
    data = store.get(key)
    found = _FORMAT.match(data)
    if found and int(found[1]) > FORMAT:
        _log.error("store.newer_record", extra={"key": key, "format": int(found[1])})
        raise StoreUnavailable(f"{key} was written by a newer version; update this process.")
    try:
        return kind.model_validate_json(data)
    except ValidationError as error:
        _log.error("store.unreadable_record", extra={"key": key, "bytes": len(data), "faults": error.error_count()})
        set_aside(store, key, data)
        raise ObjectNotFound(f"{key} cannot be read") from None


def set_aside(store: Store, key: str, data: bytes) -> None:
    """Take what cannot be read out of the way, for the operator to see. Raises StoreUnavailable."""
    if sum(1 for _ in islice(store.list(keys.UNREADABLE), MOST_SET_ASIDE)) == MOST_SET_ASIDE:
        raise StoreUnavailable("many records cannot be read, and no more are set aside; see the runbook")
    place = keys.aside(key)
    if place != keys.UNREADABLE + key:
        store.put(place, data)
        store.put(keys.UNREADABLE + key, b"")
    else:
        store.put(place, data)
    try:
        is_same = store.get(key) == data
    except ObjectNotFound:
        return
    if is_same:  # and was not written anew meanwhile
        store.delete(key)
