"""What a worker does with jobs: claim, and then commit, fail or give back, each with the number of the claim."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal, TypeVar

from core.errors import BrokerUnavailable, HyperDreamBoothError, InternalFault, StoreUnavailable, Unavailable
from core.jobs.archive import JobArchive
from core.jobs.demand import ANY_JOB, Offer
from core.jobs.ledger import Claim, LeaseState, Ledger, Progress
from core.jobs.service import JobService, logged
from core.records import Failure, Job, JobKind, JobState, Preview, Request, Result

_log = logging.getLogger(__name__)
AnswerT = TypeVar("AnswerT")


@dataclass(frozen=True)
class Assignment:
    """A job that this worker holds: the claim, the record as it was claimed, the request, and its trace."""

    claim: Claim
    job: Job
    request: Request
    traceparent: str = ""

    def logged(self) -> AbstractContextManager[None]:
        """What is logged inside has this job's id, its request's and its trace's."""
        return logged(self.job, self.traceparent)


class Claims:
    """The jobs of one worker."""

    def __init__(
        self,
        jobs: JobService,
        archive: JobArchive,
        ledger: Ledger,
        *,
        recover: Callable[[], None] = lambda: None,
        patience: float = 60.0,
    ) -> None:
        """`patience`: seconds to wait for Redis to come back when there is a result to commit.

        `recover` takes back jobs whose lease has ended.
        """
        self._recover = recover
        self._jobs = jobs
        self._archive = archive
        self._ledger = ledger
        self._patience = patience

    def claim(
        self,
        kind: JobKind | Literal["test"] | None = None,
        ref: str = "",
        *,
        offer: Offer = ANY_JOB,
        max_jobs: int = 1,
        max_rows: int = 1,
    ) -> list[Assignment]:
        """Take jobs; the list is empty when there is nothing to do. The caller must end or give back each of them.

        As in Ledger.claim. When more wait, another worker is notified.
        """
        claims = self._ledger.claim(kind, ref, offer=offer, max_jobs=max_jobs, max_rows=max_rows)
        assignments = [assignment for claim in claims if (assignment := self._assign(claim))]
        if claims.more:
            self._jobs.notify(JobKind.GENERATE, claims[0].ref)
        return assignments

    def waiting(self, kind: JobKind) -> int:
        """How many jobs of this kind wait, without those of batches. Raises BrokerUnavailable."""
        return self._ledger.queued(kind)

    def decline(self, kind: JobKind, ref: str) -> None:
        """Leave the work to another worker that is notified, of this job."""
        self._jobs.notify(kind, ref)

    def beat(self, work: Assignment, progress: Progress, *, event: str = "") -> LeaseState:
        """Renew the lease and note the progress. Raises BrokerUnavailable."""
        return self._ledger.beat(work.claim, progress, event=event)

    def preview(self, work: Assignment, preview: Preview) -> LeaseState:
        """Note what can be used before the job is over, and renew the lease. Raises BrokerUnavailable."""
        return self._ledger.preview(work.claim, preview)

    def store(self, work: Assignment, name: str, data: bytes, *, content_type: str) -> str:
        """Store what this attempt made, under a key that no other attempt uses. Returns the key."""
        return self._archive.put_attempt(work.job, name, data, content_type=content_type)

    def commit(self, work: Assignment, result: Result, seconds: dict[str, float]) -> bool:
        """Commit the result. False when it is not wanted: canceled, deleted, or another worker has the job by now."""
        with contextlib.suppress(StoreUnavailable):  # it is found out when the job is settled
            if self._jobs.is_deleted(work.job):
                self.abandon(work)
                return False
        state = self._finish(work, JobState.SUCCEEDED, result=result, seconds=seconds)
        return state is JobState.SUCCEEDED

    def fail(self, work: Assignment, error: HyperDreamBoothError) -> None:
        """End the job without a result, for good."""
        self._finish(work, JobState.FAILED, error=Failure(code=error.code, detail=error.detail))

    def cancel(self, work: Assignment) -> None:
        """End the job as canceled."""
        self._finish(work, JobState.CANCELED)

    def give_back(
        self, work: Assignment, *, counted: bool, error: HyperDreamBoothError | None = None, delay: float = 0.0
    ) -> None:
        """Let another worker do it, and notify one. A `counted` attempt that was the last one fails with `error`."""
        state = self._ledger.give_back(work.claim, counted=counted, error=error, delay=delay)
        if state is JobState.QUEUED and not delay:
            self._jobs.notify(work.job.kind, work.job.ref)
        self._after(work, state)

    def renew(self, held: Sequence[Claim]) -> None:
        """Renew the leases of these claims, from outside the process that has them. Raises BrokerUnavailable."""
        for claim in held:
            self._ledger.beat(claim, Progress())

    def expire(self, lost: Sequence[Claim]) -> None:
        """Who had these claims is dead: their leases end now. Raises BrokerUnavailable."""
        self._ledger.expire_claims(lost)
        self._recover()

    def abandon(self, work: Assignment) -> None:
        """The claim is no longer good: remove what was made so far."""
        try:
            self._archive.drop_attempt(work.job.tenant, work.job.id, work.claim.fence)
        except HyperDreamBoothError:
            _log.warning("job.cleanup_failed", exc_info=True)

    def _assign(self, claim: Claim) -> Assignment | None:
        """The job behind a claim. None when there is nothing to run: erased, or ended and Redis had lost that."""
        job = self._ledger.get(claim.ref)
        if job is None or job.fence != claim.fence:
            return None
        with logged(job):
            return self._open(claim, job)

    def _open(self, claim: Claim, job: Job) -> Assignment | None:
        try:
            over = self._archive.outcome(claim.tenant, claim.job_id)
            accepted = self._archive.accepted(claim.tenant, claim.job_id)
            if not over and not self._archive.is_marked(job):
                if not accepted:  # it was refused half-way, or deleted
                    self._jobs.erase(claim.tenant, {claim.job_id: ()})
                    return None
                self._archive.mark(accepted)  # what it makes must die with its subjects
            if accepted and accepted.is_newer and not over:
                raise Unavailable("This job was accepted by a newer version: its workers can do it.")
        except HyperDreamBoothError as error:
            self._ledger.give_back(claim, counted=False, error=error, delay=5.0)
            return None
        if over:
            self._ledger.finish(claim, over.state, result=over.result, error=over.error, seconds=over.seconds)
            self._jobs.settle(over)
            return None
        if accepted is None:
            self._end_without_request(claim)
            return None
        return Assignment(claim, accepted.about(job), accepted.request, accepted.traceparent)

    def _end_without_request(self, claim: Claim) -> None:
        lost = InternalFault("The request of this job is no longer there; send it again.")
        self._ledger.finish(claim, JobState.FAILED, error=Failure(code=lost.code, detail=lost.detail))
        if job := self._ledger.get(claim.ref):
            self._jobs.settle(job)

    def _finish(
        self,
        work: Assignment,
        state: JobState,
        *,
        result: Result | None = None,
        error: Failure | None = None,
        seconds: dict[str, float] | None = None,
    ) -> JobState | None:
        """End the job in Redis, however long that is away, and then in the store. None: the claim is not good."""
        ended = self._patiently(
            lambda: self._ledger.finish(work.claim, state, result=result, error=error, seconds=seconds)
        )
        self._after(work, ended)
        return ended

    def _after(self, work: Assignment, state: JobState | None) -> None:
        """Write the ending down, or drop what was made in vain."""
        if state is not None and state.is_final and (job := self._ledger.get(work.claim.ref)):
            try:
                self._jobs.settle(job)
            except HyperDreamBoothError:  # the request is still pending: the maintenance writes it down later
                _log.warning("job.settle_failed", exc_info=True)
        if state is not JobState.SUCCEEDED:
            self.abandon(work)

    def _patiently(self, call: Callable[[], AnswerT]) -> AnswerT:
        """Call until Redis answers: a restart of it must not lose a result. The claim guards against doubles."""
        deadline = time.monotonic() + self._patience
        while True:
            try:
                return call()
            except BrokerUnavailable:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.5)
