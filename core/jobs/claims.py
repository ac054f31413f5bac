"""What a worker does with jobs: claim, and then commit, fail or give back, each with the number of the claim."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from core.errors import BrokerUnavailable, HyperDreamBoothError, InternalFault
from core.jobs.ledger import Claim
from core.jobs.service import Jobs
from core.records import Failure, Job, JobKind, JobState, Request, Result

_log = logging.getLogger(__name__)
AnswerT = TypeVar("AnswerT")


@dataclass(frozen=True)
class Assignment:
    """A job that this worker holds: the claim, the record as it was claimed, and what was asked for."""

    claim: Claim
    job: Job
    request: Request


class Work:
    """The worker's side of the desk."""

    def __init__(self, jobs: Jobs, *, patience: float = 60.0) -> None:
        """`patience`: seconds to wait for Redis to come back when there is a result to hand in."""
        self.jobs = jobs
        self.patience = patience

    def claim(self, kind: JobKind, ref: str, *, max_jobs: int = 1, max_rows: int = 1) -> list[Assignment]:
        """Take jobs; the list is empty when there is nothing to do. The caller must end or give back each of them."""
        claims = self.jobs.ledger.claim(kind, ref, max_jobs=max_jobs, max_rows=max_rows)
        return [assignment for claim in claims if (assignment := self._assign(claim))]

    def commit(self, work: Assignment, result: Result, seconds: dict[str, float]) -> bool:
        """Hand in the result. False when it is not wanted: canceled, deleted, or somebody else has the job by now."""
        if self.jobs.archive.receipts(work.job):
            self._drop(work)
            return False
        state = self._patiently(
            lambda: self.jobs.ledger.finish(work.claim, JobState.SUCCEEDED, result=result, seconds=seconds)
        )
        self._after(work, state)
        return state is JobState.SUCCEEDED

    def fail(self, work: Assignment, error: HyperDreamBoothError) -> None:
        """End the job without a result, for good."""
        failure = Failure(code=error.code, detail=error.detail)
        self._after(work, self._patiently(lambda: self.jobs.ledger.finish(work.claim, JobState.FAILED, error=failure)))

    def cancel(self, work: Assignment) -> None:
        """End the job as canceled."""
        self._after(work, self._patiently(lambda: self.jobs.ledger.finish(work.claim, JobState.CANCELED)))

    def give_back(
        self, work: Assignment, *, counted: bool, error: HyperDreamBoothError | None = None, delay: float = 0.0
    ) -> None:
        """Let another worker do it, and ring for it. A `counted` attempt that was the last one fails with `error`."""
        state = self.jobs.ledger.give_back(work.claim, counted=counted, error=error, delay=delay)
        if state is JobState.QUEUED and not delay:
            self.jobs.notify(work.job.kind, work.job.ref)
        self._after(work, state)

    def abandon(self, work: Assignment) -> None:
        """The claim is no longer good: remove what was made so far."""
        self._drop(work)

    def _assign(self, claim: Claim) -> Assignment | None:
        """The job behind a claim. None when there is nothing to run: erased, or ended and Redis had lost that."""
        archive, ledger = self.jobs.archive, self.jobs.ledger
        job = ledger.get(claim.ref)
        if job is None or job.fence != claim.fence:
            return None
        try:
            over = archive.outcome(claim.tenant, claim.job_id)
            accepted = archive.accepted(claim.tenant, claim.job_id)
            if not over and not accepted and not archive.is_marked(job):
                # its sender was told that it was not accepted, or it was deleted
                ledger.erase([claim.ref])
                archive.erase_job(claim.tenant, claim.job_id)
                return None
        except HyperDreamBoothError as error:
            ledger.give_back(claim, counted=False, error=error, delay=5.0)
            return None
        if over:
            ledger.finish(claim, over.state, result=over.result, error=over.error, seconds=over.seconds)
            self.jobs.settle(over)
            return None
        if accepted is None:
            self._end_without_request(claim)
            return None
        return Assignment(claim, job, accepted.request)

    def _end_without_request(self, claim: Claim) -> None:
        lost = InternalFault("The request of this job is no longer there; ask again.")
        self.jobs.ledger.finish(claim, JobState.FAILED, error=Failure(code=lost.code, detail=lost.detail))
        if job := self.jobs.ledger.get(claim.ref):
            self.jobs.settle(job)

    def _after(self, work: Assignment, state: JobState | None) -> None:
        """Write the ending down, or drop what was made in vain."""
        if state is not None and state.is_final and (job := self.jobs.ledger.get(work.claim.ref)):
            try:
                self.jobs.settle(job)
            except HyperDreamBoothError:  # the request is still pending: the reaper writes it down later
                _log.warning("job.settle_failed", exc_info=True)
        if state is not JobState.SUCCEEDED:
            self._drop(work)

    def _drop(self, work: Assignment) -> None:
        try:
            self.jobs.archive.drop_attempt(work.job.tenant, work.job.id, work.claim.fence)
        except HyperDreamBoothError:
            _log.warning("job.cleanup_failed", exc_info=True)

    def _patiently(self, call: Callable[[], AnswerT]) -> AnswerT:
        """Call until Redis answers: a restart of it must not lose a result. The claim guards against doubles."""
        deadline = time.monotonic() + self.patience
        while True:
            try:
                return call()
            except BrokerUnavailable:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.5)
