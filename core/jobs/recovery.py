"""What keeps jobs going when a process dies: leases that ran out, requests that Redis lost, endings left half-way."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Protocol

from core.errors import HyperDreamBoothError
from core.ids import time_of
from core.jobs.archive import Accepted, JobArchive
from core.jobs.ledger import Ledger
from core.jobs.service import JobService
from core.records import Request

_log = logging.getLogger(__name__)
_ACCEPTING_SECONDS = 10.0
"""A request is this long left to the process that is just accepting it."""
_ABANDONED_SECONDS = 120.0
"""After this that process has died."""


class RequestSubjects(Protocol):
    """What has to be known of the subjects of a request; `core.subjects.job_effects` tells it."""

    def have_documents(self, tenant: str, request: Request) -> bool:
        """Whether all its subjects are in the store."""

    def drop_unfinished(self, tenant: str, request: Request) -> None:
        """Remove a subject whose creation was not finished."""


class JobRecovery:
    """Repairs all jobs. Any number of processes may do it at once, or one after the other, without harm."""

    def __init__(self, jobs: JobService, archive: JobArchive, ledger: Ledger, subjects: RequestSubjects) -> None:
        self._jobs = jobs
        self._archive = archive
        self._ledger = ledger
        self._subjects = subjects

    def reap(self) -> None:
        """Take back what dead workers held, and notify workers of what waits too long."""
        waiting, over = self._ledger.reap()
        for ref in over:
            guarded("settle", ref, partial(self._settle, ref))
        for ref in waiting:
            guarded("notify", ref, partial(self._notify, ref))

    def reconcile(self) -> None:
        """Compare what was accepted with what Redis knows: queue what it lost, write down what ended unseen."""
        for tenant, job_id in list(self._archive.all_accepted()):
            guarded("reconcile", f"{tenant}/{job_id}", partial(self._reconcile, tenant, job_id))

    def _reconcile(self, tenant: str, job_id: str) -> None:
        job = self._jobs.get_live(tenant, job_id) or self._archive.outcome(tenant, job_id)
        if job is None:
            self._restore(tenant, job_id)
        elif job.state.is_final:
            self._jobs.settle(job)

    def _restore(self, tenant: str, job_id: str) -> None:
        """Queue again what Redis does not know, unless a process is just accepting it, or died while doing so."""
        age = time.time() - time_of(job_id)
        accepted: Accepted | None = self._archive.accepted(tenant, job_id)
        if accepted is None or age < _ACCEPTING_SECONDS:
            return
        if self._subjects.have_documents(tenant, accepted.request):
            _log.info("job.restored", extra={"job_id": job_id})
            self._jobs.restore(tenant, job_id)
        elif age > _ABANDONED_SECONDS:
            self._subjects.drop_unfinished(tenant, accepted.request)
            self._archive.unmark(tenant, accepted.request.subject_ids, job_id)
            self._archive.unlist(tenant, job_id)
            self._archive.drop_accepted(tenant, job_id)  # last: until then this is done again

    def _settle(self, ref: str) -> None:
        if job := self._ledger.get(ref):
            _log.info("job.settled_late", extra={"job_id": job.id, "state": job.state.value})
            self._jobs.settle(job)

    def _notify(self, ref: str) -> None:
        if job := self._ledger.get(ref):
            self._jobs.notify(job.kind, ref)


def guarded(what: str, ref: str, act: Callable[[], None]) -> None:
    """Do it; one job's trouble must not keep the others waiting: what failed comes up again."""
    try:
        act()
    except HyperDreamBoothError:
        _log.warning("maintenance.failed", extra={"what": what, "ref": ref}, exc_info=True)
