"""Which jobs a tenant has, newest first, by the names of empty objects: no record is read to find the right ones.

{tenant}/job-list/{when}.{kind}.{state}

`when` is the job's id turned around digit by digit, so that the store's order begins with the newest job; its first
four digits are a folder, one for about nine hours. `state` is `open` until the job is over. Who writes the final name
removes the open one after that: for a moment there may be both, and the final one counts.

The store holds this and not Redis: a list must be whole after Redis came back empty.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from core.ids import ALPHABET
from core.records import Job, JobKind, JobState
from core.storage import Store, keys

OPEN = "open"
_TURNED = str.maketrans(ALPHABET, ALPHABET[::-1])
_FOLDER = 4


@dataclass(frozen=True)
class Entry:
    """What a name says: `state` is None while the job is not over, or was not when this was written."""

    job_id: str
    kind: JobKind
    state: JobState | None


def note(store: Store, job: Job) -> None:
    """Put the job on the list, or write down how it ended. Raises StoreUnavailable."""
    facts = f"{_name(job.tenant, job.id)}{job.kind}."
    if not job.state.is_final:
        store.put(facts + OPEN, b"")
        return
    store.put(facts + job.state.value, b"")
    store.delete(facts + OPEN)


def forget(store: Store, tenant: str, job_id: str) -> None:
    """Take the job off the list. Raises StoreUnavailable."""
    for key in list(store.list(_name(tenant, job_id))):
        store.delete(key)


def newest_first(store: Store, tenant: str, *, after: str = "") -> Iterator[Entry]:
    """The tenant's jobs; those that are older than the job `after`, when it is given. Raises StoreUnavailable."""
    prefix = keys.job_list(tenant)
    last: Entry | None = None
    # "/" is the character after ".": all names of `after` come before it.
    start = f"{_name(tenant, after).removesuffix('.')}/" if after else ""
    for key in store.list(prefix, after=start):
        entry = _read(key.removeprefix(prefix))
        if last and last.job_id != entry.job_id:
            yield last
        if last is None or last.job_id != entry.job_id or last.state is None:
            last = entry
    if last:
        yield last


def _name(tenant: str, job_id: str) -> str:
    """The beginning of the names of a job."""
    turned = job_id.removeprefix("job_").translate(_TURNED)
    return f"{keys.job_list(tenant)}{turned[:_FOLDER]}/{turned[_FOLDER:]}."


def _read(name: str) -> Entry:
    when, kind, state = name.replace("/", "", 1).split(".")
    final = None if state == OPEN else JobState(state)
    return Entry(f"job_{when.translate(_TURNED)}", JobKind(kind), final)
