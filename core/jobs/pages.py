"""A page of a tenant's jobs: names are looked through, and records are read for what is on the page."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TypeAlias

from core.errors import BrokerUnavailable
from core.jobs import listing
from core.jobs.archive import Archive
from core.jobs.ledger import Ledger
from core.records import Job, JobKind, JobState
from core.storage import keys

MOST_NAMES = 10_000
MOST_RECORDS = 500
"""What is looked through for one page, so that a filter that fits little cannot make a request endless."""
_READERS = 8

Standing: TypeAlias = tuple[Job, int | None]
"""A job, and how many are before it in its queue: None when it is not queued."""


@dataclass(frozen=True)
class Wanted:
    """Which jobs; None: any."""

    state: JobState | None = None
    kind: JobKind | None = None
    subject_id: str | None = None

    def fits(self, job: Job) -> bool:
        """Whether the job is one of these."""
        return (
            self.state in (None, job.state)
            and self.kind in (None, job.kind)
            and self.subject_id in (None, *job.subject_ids)
        )

    def may_fit(self, entry: listing.Entry) -> bool:
        """The same, as far as a name can tell: a job that was open may be over by now."""
        return (self.state is None or entry.state in (None, self.state)) and self.kind in (None, entry.kind)


@dataclass(frozen=True)
class Page:
    """Jobs with their positions in the queue, newest first.

    `after` asks for the next page: the id of the last job that was looked at. None: there are no more.
    """

    jobs: list[Standing]
    after: str | None


@dataclass
class _Names:
    """Ids of jobs that may be wanted, at most MOST_NAMES looked at; `last` is the last one that was."""

    found: Iterator[tuple[str, bool]]
    last: str = ""

    def __iter__(self) -> Iterator[str]:
        for job_id, may_fit in islice(self.found, MOST_NAMES):
            self.last = job_id
            if may_fit:
                yield job_id

    @property
    def has_more(self) -> bool:
        return next(self.found, None) is not None


def page(archive: Archive, ledger: Ledger, tenant: str, wanted: Wanted, *, limit: int, after: str = "") -> Page:
    """The newest jobs of those wanted that are older than the job `after`, at most `limit`.

    A page can have fewer, or none, although there are more: when much was looked through. Raises StoreUnavailable, and
    BrokerUnavailable where only Redis knows how a job stands.
    """
    names = _Names(_names(archive, tenant, wanted, after))
    ids = iter(names)
    found: list[Standing] = []
    looked = 0
    while chunk := list(islice(ids, limit + 1)):
        found += [each for each in read(archive, ledger, tenant, chunk) if wanted.fits(each[0])]
        looked += len(chunk)
        if len(found) > limit:
            return Page(found[:limit], found[limit - 1][0].id)
        if looked >= MOST_RECORDS:
            return Page(found, chunk[-1])
    return Page(found, names.last if names.has_more else None)


def read(archive: Archive, ledger: Ledger, tenant: str, job_ids: Sequence[str]) -> list[Standing]:
    """The records of jobs and their positions, without those that are no longer there.

    From Redis in one round trip; from the store what Redis does not know any more.
    """
    outage: BrokerUnavailable | None = None
    try:
        known = ledger.look([f"{tenant}/{job_id}" for job_id in job_ids])
    except BrokerUnavailable as error:
        known, outage = [None] * len(job_ids), error
    missing = [job_id for job_id, standing in zip(job_ids, known, strict=True) if standing is None]
    others = iter(_read_stored(partial(stored, archive, tenant, outage), missing))
    job_reader = [standing or next(others) for standing in known]
    return [standing for standing in job_reader if standing]


def _names(archive: Archive, tenant: str, wanted: Wanted, after: str) -> Iterator[tuple[str, bool]]:
    """Ids, newest first, from the shortest list that has all that are wanted, and whether each may be wanted."""
    if wanted.state and not wanted.state.is_final:
        prefix = f"{keys.PENDING}{tenant}/"
        open_ids = [key.removeprefix(prefix).removesuffix(".json") for key in archive.store.list(prefix)]
        return _before(open_ids, after)
    if wanted.subject_id:
        return _before(archive.job_ids(tenant, wanted.subject_id), after)
    entries = listing.newest_first(archive.store, tenant, after=after)
    return ((entry.job_id, wanted.may_fit(entry)) for entry in entries)


def _before(job_ids: Sequence[str], after: str) -> Iterator[tuple[str, bool]]:
    """Sorted ids from the end, those before `after`."""
    return ((job_id, True) for job_id in reversed(job_ids) if not after or job_id < after)


def _read_stored(read_one: Callable[[str], Standing | None], job_ids: Sequence[str]) -> list[Standing | None]:
    if len(job_ids) < 2:
        return [read_one(job_id) for job_id in job_ids]
    with ThreadPoolExecutor(_READERS) as readers:
        return list(readers.map(read_one, job_ids))


def stored(archive: Archive, tenant: str, outage: BrokerUnavailable | None, job_id: str) -> Standing | None:
    """The record of a job that Redis does not know, or None. Raises the `outage` when only Redis could tell."""
    if over := archive.outcome(tenant, job_id):
        return over, None
    if outage:
        raise outage
    accepted = archive.accepted(tenant, job_id)
    return (accepted.as_job(), None) if accepted else None
