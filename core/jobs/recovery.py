"""What keeps jobs going when a process dies: leases that ran out, requests that Redis lost, endings left half-way."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from functools import partial
from itertools import islice
from typing import Protocol

from core.errors import InternalFault
from core.jobs.archive import Accepted, JobArchive
from core.jobs.ledger import Ledger
from core.jobs.service import JobService, logged
from core.queue.connection import MAX_AT_ONCE
from core.queue.failures import Failures
from core.records import Failure, Job, JobState

_log = logging.getLogger(__name__)
_ACCEPTING_SECONDS = 10.0
"""A request is this long left to the process that is just accepting it."""
_ABANDONED_SECONDS = 120.0
"""After this that process has died."""


class RequestSubjects(Protocol):
    """What has to be known of the subjects of a request; `core.subjects.job_effects` tells it."""

    def is_whole(self, accepted: Accepted) -> bool:
        """Whether all that belongs to it is in the store."""

    def drop_unfinished(self, accepted: Accepted) -> None:
        """Remove what was stored of a request that was not accepted to its end."""


class JobRecovery:
    """Repairs all jobs. Any number of processes may do it at once, or one after the other, without harm."""

    def __init__(
        self, jobs: JobService, archive: JobArchive, ledger: Ledger, subjects: RequestSubjects, failures: Failures
    ) -> None:
        self._jobs = jobs
        self._archive = archive
        self._ledger = ledger
        self._subjects = subjects
        self._failures = failures

    def reap(self) -> None:
        """Take back what dead workers held, and notify workers of what waits too long."""
        waiting, over = self._ledger.reap()
        for ref in over:
            self._failures.attempt("settle", ref, partial(self._settle, ref))
        for ref in waiting:
            self._failures.attempt("notify", ref, partial(self._notify, ref))

    def reconcile(self) -> None:
        """Compare what was accepted with what Redis knows: queue what it lost, write down what ended unseen."""
        for _ in self.reconciling():
            pass

    def reconciling(self) -> Iterator[None]:
        """The same, a hundred jobs from one `next` to the other, so that other things can be done in between."""
        accepted = self._archive.all_accepted()
        while some := list(islice(accepted, MAX_AT_ONCE)):
            refs = [f"{tenant}/{job_id}" for tenant, job_id in some]
            for ref, found in zip(refs, self._ledger.read(refs), strict=True):
                if found is None or found.job.state.is_final:
                    job = found.job if found else None
                    self._failures.attempt("settle", ref, partial(self._reconcile, ref, job))
            yield
        for tenant, job_id in list(self._archive.unreadable_requests()):
            self._failures.attempt("settle", f"{tenant}/{job_id}", partial(self._end_unreadable, tenant, job_id))

    def _end_unreadable(self, tenant: str, job_id: str) -> None:
        """End a job whose request cannot be read, unless a worker is about to find that out."""
        if self._archive.outcome(tenant, job_id) or self._jobs.get_live(tenant, job_id):
            return
        if job := self._archive.listed(tenant, job_id):
            fault = InternalFault("The request of this job cannot be read; send it again.")
            ended = {"state": JobState.FAILED, "finished_at": time.time()}
            ended["error"] = Failure(code=fault.code, detail=fault.detail)
            self._jobs.settle(job.model_copy(update=ended))

    def _reconcile(self, ref: str, job: Job | None) -> None:
        tenant, _, job_id = ref.partition("/")
        job = job or self._archive.outcome(tenant, job_id)
        if job is None:
            self._restore(tenant, job_id)
        elif job.state.is_final:
            with logged(job):
                self._jobs.settle(job)

    def _restore(self, tenant: str, job_id: str) -> None:
        """Queue again what Redis does not know, unless a process is just accepting it, or died while doing so."""
        accepted: Accepted | None = self._archive.accepted(tenant, job_id)
        age = (
            time.time() - accepted.created_at if accepted else 0.0
        )  # of this try: the id may be that of an earlier one
        if accepted is None or age < _ACCEPTING_SECONDS:
            return
        if self._subjects.is_whole(accepted):
            with logged(accepted.as_job(), accepted.traceparent):
                _log.info("job.restored")
                self._jobs.restore(tenant, job_id)
        elif age > _ABANDONED_SECONDS:
            self._subjects.drop_unfinished(accepted)
            self._archive.unmark(tenant, accepted.request.subject_ids, job_id)
            self._archive.unlist(tenant, job_id)
            self._archive.drop_accepted(tenant, job_id)  # last: until then this is done again

    def _settle(self, ref: str) -> None:
        if job := self._ledger.get(ref):
            with logged(job):
                _log.info("job.settled_late", extra={"state": job.state.value})
                self._jobs.settle(job)

    def _notify(self, ref: str) -> None:
        if job := self._ledger.get(ref):
            with logged(job):
                self._jobs.notify(job.kind, ref)
