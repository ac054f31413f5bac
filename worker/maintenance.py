"""What keeps jobs going when somebody dies: expired leases go back, bells are rung again, endings are written down.

Any number of reapers may run; Redis gives each turn to one of them.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial

from core.batches.scheduler import BatchScheduler
from core.errors import HyperDreamBoothError
from core.ids import time_of
from core.jobs import listing
from core.jobs.service import Jobs
from core.jobs.settling import erase
from core.records import Job, PersonalizeRequest, Receipt
from core.storage import keys
from core.tenants import idempotency, usage
from core.webhooks import registry as webhooks

_log = logging.getLogger(__name__)
_RECEIPT_SECONDS = 24 * 3600
_ACCEPTING_SECONDS = 10.0
_ABANDONED_SECONDS = 120.0


class Maintenance:
    """One look around at a time: `tick()`, every `reap_seconds`."""

    def __init__(
        self,
        jobs: Jobs,
        *,
        reap_seconds: float = 2.0,
        reconcile_seconds: float = 30.0,
        erase_seconds: float = 1860.0,
        batch_window: int = 64,
        batch_kept_days: int = 30,
    ) -> None:
        """`erase_seconds`: how long after a deletion somebody who was late may still write to the subject.

        `batch_window` as in BatchScheduler; batches are deleted after `batch_kept_days`, unless it is 0.
        """
        self.jobs = jobs
        self.reap_seconds = reap_seconds
        self.reconcile_seconds = reconcile_seconds
        self.erase_seconds = erase_seconds
        self.batch_kept_days = batch_kept_days
        self.scheduler = BatchScheduler(jobs, window=batch_window, erase_seconds=erase_seconds)

    def tick(self) -> None:
        """Look around once, if it is this reaper's turn. Raises BrokerUnavailable when Redis is not there."""
        # Slightly early, so that a clock that is a little off does not skip every second turn.
        if self.jobs.ledger.turn("reap", self.reap_seconds * 0.9):
            self.reap()
        if self.jobs.ledger.turn("reconcile", self.reconcile_seconds):
            self.reconcile()
            self.finish_erasures()
        if self.jobs.ledger.turn("receipts", 3600):
            self.jobs.archive.drop_receipts(time.time() - _RECEIPT_SECONDS)
            idempotency.drop_old(self.jobs.archive.store)
            usage.drop_old(self.jobs.archive.store)
            webhooks.drop_old(self.jobs.archive.store)
            self.scheduler.drop_old(self.batch_kept_days * 24 * 3600.0)
        if self.jobs.ledger.turn("feed", self.reap_seconds * 0.9):
            self.scheduler.feed()

    def reap(self) -> None:
        """Take back what dead workers held, and ring for what waits too long."""
        rings, over = self.jobs.ledger.reap()
        for ref in over:
            self._guarded("settle", ref, self._settle)
        for ref in rings:
            self._guarded("notify", ref, self._notify)

    def reconcile(self) -> None:
        """Compare what was accepted with what Redis knows: queue what it lost, write down what ended unseen."""
        for tenant, job_id in list(self.jobs.archive.all_accepted()):
            self._guarded("reconcile", f"{tenant}/{job_id}", self._reconcile)

    def finish_erasures(self) -> None:
        """Erase deleted subjects again, until nobody can be left who writes to them."""
        for receipt in list(self.jobs.archive.erasing()):
            self._guarded("erase", f"{receipt.tenant}/{receipt.subject_id}", partial(self._erase, receipt))

    def _erase(self, receipt: Receipt, _ref: str) -> None:
        erase(self.jobs.archive, self.jobs.ledger, receipt)
        if time.time() - receipt.deleted_at > self.erase_seconds:
            self.jobs.archive.erased(receipt)

    def _reconcile(self, ref: str) -> None:
        tenant, _, job_id = ref.partition("/")
        job = self.jobs.ledger.get(ref)
        if job is None:
            job = self.jobs.archive.outcome(tenant, job_id)
        if job is None:
            self._restore(tenant, job_id)
        elif job.state.is_final:
            self.jobs.settle(job)

    def _restore(self, tenant: str, job_id: str) -> None:
        """Queue again what Redis does not know, unless somebody is just accepting it, or died while doing so."""
        age = time.time() - time_of(job_id)
        accepted = self.jobs.archive.accepted(tenant, job_id)
        if accepted is None or age < _ACCEPTING_SECONDS:
            return
        request = accepted.request
        documents = [keys.document(tenant, subject_id) for subject_id in request.subject_ids]
        if all(self.jobs.archive.store.exists(document) for document in documents):
            _log.info("job.restored", extra={"job_id": job_id})
            self.jobs.restore(tenant, job_id)
        elif age > _ABANDONED_SECONDS:
            if isinstance(request, PersonalizeRequest):
                self.jobs.archive.store.delete_prefix(keys.subject(tenant, request.subject_id))
            self.jobs.archive.unmark(tenant, request.subject_ids, job_id)
            listing.forget(self.jobs.archive.store, tenant, job_id)
            self.jobs.archive.drop_accepted(tenant, job_id)

    def _settle(self, ref: str) -> None:
        if job := self.jobs.ledger.get(ref):
            _log.info("job.settled_late", extra={"job_id": job.id, "state": job.state.value})
            self.jobs.settle(job)

    def _notify(self, ref: str) -> None:
        job: Job | None = self.jobs.ledger.get(ref)
        if job:
            self.jobs.notify(job.kind, ref)

    def _guarded(self, what: str, ref: str, act: Callable[[str], None]) -> None:
        """One job's trouble must not keep the others waiting: what failed comes up again."""
        try:
            act(ref)
        except HyperDreamBoothError:
            _log.warning("maintenance.failed", extra={"what": what, "ref": ref}, exc_info=True)
