"""A page of a tenant's jobs: names are looked through, and records are read for what is on the page."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice

from core.errors import BrokerUnavailable
from core.jobs.archive import Entry, JobArchive
from core.jobs.ledger import Ledger
from core.jobs.redis_records import QueuedJob
from core.records import Job, JobKind, JobState

MOST_NAMES = 10_000
MOST_RECORDS = 500
"""What is looked through for one page, so that a filter that fits little cannot make a request endless."""
_READERS = 8


@dataclass(frozen=True)
class JobFilter:
    """Which jobs; None: any."""

    state: JobState | None = None
    kind: JobKind | None = None
    subject_id: str | None = None

    def matches(self, job: Job) -> bool:
        """Whether the job is one of these."""
        return (
            self.state in (None, job.state)
            and self.kind in (None, job.kind)
            and self.subject_id in (None, *job.subject_ids)
        )

    def may_match(self, entry: Entry) -> bool:
        """The same, as far as a name can tell: a job that was open may be over by now."""
        return (self.state is None or entry.state in (None, self.state)) and self.kind in (None, entry.kind)


@dataclass(frozen=True)
class Page:
    """Jobs with their positions in the queue, newest first.

    `after` asks for the next page: the id of the last job that was looked at. None: there are no more.
    """

    jobs: list[QueuedJob]
    after: str | None


@dataclass
class _Names:
    """Ids of jobs that may be wanted, at most MOST_NAMES looked at; `last` is the last one that was."""

    found: Iterator[tuple[str, bool]]
    last: str = ""

    def __iter__(self) -> Iterator[str]:
        for job_id, may_match in islice(self.found, MOST_NAMES):
            self.last = job_id
            if may_match:
                yield job_id

    @property
    def has_more(self) -> bool:
        return next(self.found, None) is not None


def page(archive: JobArchive, ledger: Ledger, tenant: str, matching: JobFilter, *, limit: int, after: str = "") -> Page:
    """The newest jobs of those wanted that are older than the job `after`, at most `limit`.

    A page can have fewer, or none, although there are more: when much was looked through. Raises StoreUnavailable, and
    BrokerUnavailable where only Redis knows how a job stands.
    """
    names = _Names(_names(archive, tenant, matching, after))
    ids = iter(names)
    found: list[QueuedJob] = []
    looked = 0
    while chunk := list(islice(ids, limit + 1)):
        found += [each for each in read(archive, ledger, tenant, chunk) if matching.matches(each.job)]
        looked += len(chunk)
        if len(found) > limit:
            return Page(found[:limit], found[limit - 1].job.id)
        if looked >= MOST_RECORDS:
            return Page(found, chunk[-1])
    return Page(found, names.last if names.has_more else None)


def read(archive: JobArchive, ledger: Ledger, tenant: str, job_ids: Sequence[str]) -> list[QueuedJob]:
    """The records of jobs and their positions, without those that are no longer there.

    From Redis in one round trip; from the store what Redis does not know any more.
    """
    outage: BrokerUnavailable | None = None
    try:
        known = ledger.read([f"{tenant}/{job_id}" for job_id in job_ids])
    except BrokerUnavailable as error:
        known, outage = [None] * len(job_ids), error
    missing = [job_id for job_id, each in zip(job_ids, known, strict=True) if each is None]
    others = iter(_read_stored(partial(stored, archive, tenant, outage), missing))
    found = [each or next(others) for each in known]
    return [each for each in found if each]


def _names(archive: JobArchive, tenant: str, matching: JobFilter, after: str) -> Iterator[tuple[str, bool]]:
    """Ids, newest first, from the shortest list that has all that are wanted, and whether each may match."""
    if matching.state and not matching.state.is_final:
        return _before(archive.open_ids(tenant), after)
    if matching.subject_id:
        return _before(archive.job_ids(tenant, matching.subject_id), after)
    entries = archive.newest_first(tenant, after=after)
    return ((entry.job_id, matching.may_match(entry)) for entry in entries)


def _before(job_ids: Sequence[str], after: str) -> Iterator[tuple[str, bool]]:
    """Sorted ids from the end, those before `after`."""
    return ((job_id, True) for job_id in reversed(job_ids) if not after or job_id < after)


def _read_stored(read_one: Callable[[str], QueuedJob | None], job_ids: Sequence[str]) -> list[QueuedJob | None]:
    if len(job_ids) < 2:
        return [read_one(job_id) for job_id in job_ids]
    with ThreadPoolExecutor(_READERS) as readers:
        return list(readers.map(read_one, job_ids))


def stored(archive: JobArchive, tenant: str, outage: BrokerUnavailable | None, job_id: str) -> QueuedJob | None:
    """The record of a job that Redis does not know, or None. Raises the `outage` when only Redis could tell."""
    if over := archive.outcome(tenant, job_id):
        return QueuedJob(over, None)
    if outage:
        raise outage
    accepted = archive.accepted(tenant, job_id)
    return QueuedJob(accepted.as_job(), None) if accepted else None
