"""What the worker does with a notification: claim the jobs whose turn it is, run them, and commit what comes of them.

Only here do bytes and arrays meet. Running a job twice is safe: the same request gives the same picture ids and seeds,
each attempt writes under keys of its own, and the first commit is the one that counts.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

from celery.exceptions import SoftTimeLimitExceeded

from core import errors
from core.ids import is_test
from core.jobs.claims import Assignment
from core.jobs.demand import Offer
from core.jobs.ledger import TESTS
from core.records import (
    Image,
    JobKind,
    PersonalizeRequest,
    PersonalizeResult,
    Preview,
    Weights,
)
from core.services import Services
from core.storage.keys import weights as weights_key
from worker import identities, metrics, pictures
from worker.engine import Engine, Row, options_of
from worker.generating import Generator
from worker.lease import Lease, Patience
from worker.overall_progress import COSTS
from worker.results import Results
from worker.shared import Shared

_log = logging.getLogger(__name__)
_OUTAGE_SECONDS = 30.0
"""After an outage: how long prompts are not claimed between two steps."""
_SHARED_STAGES = frozenset({"finetune", "likeness"})
"""Stages of personalizing between whose steps waiting prompts are drawn: previews go first, and are short."""


@dataclass(frozen=True)
class BatchLimits:
    """How many generating jobs, and how many pictures, one batch may have."""

    jobs: int = 16
    rows: int = 16


class JobRunner:
    """Claims jobs, runs them on the engine, and commits their results."""

    def __init__(
        self,
        services: Services,
        engine: Engine,
        *,
        worker_stops: Callable[[], bool],
        patience: Patience,
        batch: BatchLimits,
        shared: Shared | None = None,
        on_fault: Callable[[str], None] = lambda _: None,
        measured: bool = True,
    ) -> None:
        """`measured`: whether what it does is for the metrics.

        `on_fault` is called with a job's ref when the engine failed with it for an unknown reason.
        """
        self._shared = shared or Shared()
        self._on_fault = on_fault
        self._claims = services.claims
        self._subjects = services.subjects
        self._layouts = services.export_layouts
        self._engine = engine
        self._worker_stops = worker_stops
        self._patience = patience
        self._batch = batch
        self._results = Results(self._claims, self._shared, measured=measured)
        self._generator = Generator(
            engine,
            self._claims,
            self._subjects,
            self._results,
            retry=patience.retry,
            most_rows=batch.rows if measured else None,
        )
        self._offer = Offer(model=engine.fingerprint)
        self._described = False
        self._costs = COSTS
        self._let_in_again = 0.0

    def handle(self, kind: JobKind, ref: str) -> int:
        """Do the jobs whose turn it is; this one was the occasion. Returns how many were taken."""
        if self._worker_stops():
            self._claims.decline(kind, ref)
            return 0
        return self._do(self._claim())

    def _claim(self, kind: JobKind | None = None) -> list[Assignment]:
        return self._claims.claim(kind, offer=self._offer, max_jobs=self._batch.jobs, max_rows=self._batch.rows)

    def handle_test(self) -> int:
        """Do the oldest job of a test key. Returns how many jobs were taken: 1, or 0 when there is none."""
        return self._do(self._claims.claim(TESTS))

    def _do(self, assignments: list[Assignment]) -> int:
        self._log_claimed(assignments)
        metrics.observe_memory(self._engine.device_memory())
        if assignments:
            # What the engine logs about a batch is about no single job of it.
            with assignments[0].logged() if len(assignments) == 1 else nullcontext():
                if assignments[0].job.kind is JobKind.PERSONALIZE or not self._described:
                    self._describe_bundle()
                self._run(assignments)
        return len(assignments)

    def _log_claimed(self, assignments: Sequence[Assignment]) -> None:
        for assignment in assignments:
            with assignment.logged():
                _log.info("job.claimed", extra={"kind": assignment.job.kind.value, "jobs": len(assignments)})

    def _describe_bundle(self) -> None:
        """Let the API know what it needs to export weights of this bundle; with every new subject, for it is little."""
        layout = self._engine.layout
        try:
            self._layouts.put(str(layout.pins["fingerprint"]), str(layout.pins["basis"]), layout.to_json())
            self._described = True
        except errors.StoreUnavailable:
            _log.warning("worker.layout_not_stored", exc_info=True)

    def _let_prompts_in(self, holder: Lease) -> None:
        """Between two steps of a personalization, draw what waits as one batch: a prompt waits for a step, not for all.

        They have two thirds of the time at most. Items of batches have a turn where a prompt waits, too.
        """
        if self._worker_stops() or time.monotonic() < self._let_in_again:
            return
        try:
            if not self._claims.waiting(JobKind.GENERATE):
                return
            prompts = self._claim(JobKind.GENERATE)
            if any(each.claim.attempt > 1 for each in prompts):  # it may have brought a worker down: not this one's job
                for each in prompts:
                    self._claims.give_back(each, counted=False, delay=1.0)
                prompts = []
        except errors.Unavailable:
            self._let_in_again = time.monotonic() + _OUTAGE_SECONDS
            return
        if prompts:
            began = time.monotonic()
            self._log_claimed(prompts)
            self._run(prompts, holder)
            now = time.monotonic()
            self._let_in_again = max(self._let_in_again, now + (now - began) / 2)

    def _run(self, assignments: list[Assignment], holder: Lease | None = None) -> None:
        """Run jobs; whatever happens, each of them is ended or given back.

        `holder` is the lease of a personalization that lets them in between two of its steps.
        """
        with Lease(
            self._claims,
            assignments,
            self._worker_stops,
            self._patience,
            costs=self._costs,
            shared=self._shared,
            holder=holder,
        ) as lease:
            try:
                if isinstance(assignments[0].request, PersonalizeRequest):
                    self._personalize(lease, assignments[0], assignments[0].request)
                else:
                    self._generator.run(lease, assignments)
            except errors.JobCanceled:
                lease.give_back(counted=False)  # what is left by now was not canceled: the worker has to stop
            except SoftTimeLimitExceeded as late:
                self._out_of_time(lease, holder, late)
            except errors.Unavailable as error:
                self._let_in_again = time.monotonic() + _OUTAGE_SECONDS
                lease.give_back(counted=False, error=error, delay=self._patience.retry)
            except errors.HyperDreamBoothError as error:
                lease.log(logging.INFO, "job.rejected", code=error.code)
                if len(assignments) == 1:
                    self._results.fail(lease, error)
                else:
                    lease.give_back(counted=True, error=error)  # each alone, so that the others do not suffer
            except Exception as error:  # noqa: BLE001 - a job's fault must not take the worker along
                self._crashed(lease, assignments, holder, error)

    def _out_of_time(self, lease: Lease, holder: Lease | None, late: SoftTimeLimitExceeded) -> None:
        if holder is not None:  # it is the personalization that has been running for so long
            lease.give_back(counted=False)
            raise late
        lease.log(logging.WARNING, "job.out_of_time")
        if lease.outage:  # it is not the job that took so long
            lease.give_back(counted=False, error=lease.outage, delay=self._patience.retry)
        self._results.fail(
            lease, errors.OutOfTime("The job took longer than is allowed; ask for fewer steps or pictures.")
        )

    def _crashed(self, lease: Lease, assignments: list[Assignment], holder: Lease | None, error: Exception) -> None:
        if _is_of_memory(error):
            lease.log(logging.WARNING, "job.out_of_memory", exc_info=True)
            lease.give_back(counted=False, error=errors.OutOfMemory(), delay=self._patience.retry)
            return
        lease.log(logging.ERROR, "job.crashed", exc_info=True)
        fault = errors.InternalFault(f"The worker failed with {type(error).__name__}.")
        attempts = max(each.claim.attempt for each in assignments)
        lease.give_back(counted=True, error=fault, delay=self._patience.retry * attempts)
        if holder is not None:
            holder.give_back(counted=False)  # this process may be ended now, and its job is not at fault
        self._on_fault(assignments[0].claim.ref)

    def _personalize(self, lease: Lease, assignment: Assignment, request: PersonalizeRequest) -> None:
        """Photos to weights: the engine's work, stored under this attempt's keys, and committed."""
        began = time.monotonic()
        previews: list[Preview] = []
        read = partial(self._subjects.read, assignment.job.tenant)

        def publish_preview(data: bytes) -> None:
            self._results.store(lease, assignment, "preview.lidb", data)
            before = [each.image for each in previews]
            image = self._draw(lease, assignment, request, data, number=len(before))
            previews.append(Preview(image=image, before=tuple(before)))
            lease.publish(assignment, previews[-1])

        def on_progress(stage: str, step: int, total: int) -> None:
            lease.on_progress(stage, step, total)
            if stage in _SHARED_STAGES and not is_test(assignment.job.ref):
                self._let_prompts_in(lease)

        photos = pictures.stack([pictures.decode(read(key)) for key in request.photos])
        self._results.store(lease, assignment, identities.NAME, identities.to_bytes(self._engine.embed(photos)))
        made = self._engine.personalize(
            photos,
            options_of(request, read(request.start_key) if request.start_key else None),
            on_progress=on_progress,
            on_preview=publish_preview,
            should_stop=lease.should_stop,
        )
        if made.seconds.keys() >= COSTS.keys():  # what the next one will take as well
            self._costs = {stage: made.seconds[stage] for stage in COSTS}
        job = assignment.job
        weights = Weights(
            refined_key=self._results.store(lease, assignment, "refined.lidb", made.weights),
            preview_key=weights_key(job.tenant, job.id, job.fence, "preview") if previews else None,
            bytes=len(made.weights),
            sha256=hashlib.sha256(made.weights).hexdigest(),
        )
        result = PersonalizeResult(
            weights=weights,
            likeness=made.likeness,
            likeness_by=made.likeness_by,
            kept_step=made.kept_step,
            bundle=self._engine.name,
            bundle_fingerprint=self._engine.fingerprint,
        )
        self._results.commit(lease, assignment, result, {**made.seconds, "total": time.monotonic() - began})

    def _draw(
        self, lease: Lease, assignment: Assignment, request: PersonalizeRequest, weights: bytes, *, number: int
    ) -> Image:
        """A picture of the subject before its weights are done; ``number`` says which of them it is."""
        pixels = self._engine.preview(
            Row(f"a [V] {request.class_noun or 'face'}", "", weights, request.seed, None),
            on_progress=lambda _, step, total: lease.on_progress("preview", step, total),
            should_stop=lease.should_stop,
        )
        return self._results.store_picture(lease, assignment, request, number, pixels)


def _is_of_memory(error: Exception) -> bool:
    """Whether memory was short, of the machine or of its device (torch, which is not imported here, has an error)."""
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
