"""What the worker does with a notification: claim jobs, run them on the engine, and commit what comes of them.

Only here do bytes and arrays meet. Running a job twice is safe: the same request gives the same picture ids and seeds,
each attempt writes under keys of its own, and the first commit is the one that counts.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from celery.exceptions import SoftTimeLimitExceeded

from core import errors
from core.jobs.claims import Assignment
from core.log import log_context
from core.records import (
    GenerateRequest,
    GenerateResult,
    Image,
    JobKind,
    PersonalizeRequest,
    PersonalizeResult,
    Preview,
    Result,
    Weights,
)
from core.services import Services
from core.storage.keys import image_id
from worker import pictures
from worker.engine import Engine, Part, Row, options_of, rows_of
from worker.lease import Lease, Patience

_log = logging.getLogger(__name__)
_RETRY_SECONDS = 5.0


@dataclass(frozen=True)
class BatchLimits:
    """How many generating jobs, and how many pictures, one batch may have."""

    jobs: int = 8
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
    ) -> None:
        self._claims = services.claims
        self._subjects = services.subjects
        self._layouts = services.export_layouts
        self._engine = engine
        self._worker_stops = worker_stops
        self._patience = patience
        self._batch = batch
        self._described = False

    def handle(self, kind: JobKind, ref: str) -> int:
        """Do the job `ref`, or what waits in its stead. Returns how many jobs were taken."""
        if self._worker_stops():
            self._claims.decline(kind, ref)
            return 0
        max_jobs = self._batch.jobs if kind is JobKind.GENERATE else 1
        assignments = self._claims.claim(kind, ref, max_jobs=max_jobs, max_rows=self._batch.rows)
        if assignments:
            first = assignments[0].job
            with log_context(job_id=first.id, request_id=first.request_id):
                _log.info("job.claimed", extra={"kind": kind.value, "jobs": len(assignments)})
                if kind is JobKind.PERSONALIZE or not self._described:
                    self._describe_bundle()
                self._run(assignments)
        return len(assignments)

    def _describe_bundle(self) -> None:
        """Let the API know what it needs to export weights of this bundle; with every new subject, for it is little."""
        layout = self._engine.layout
        try:
            self._layouts.put(str(layout.pins["fingerprint"]), str(layout.pins["basis"]), layout.to_json())
            self._described = True
        except errors.StoreUnavailable:
            _log.warning("worker.layout_not_stored", exc_info=True)

    def _run(self, assignments: list[Assignment]) -> None:
        """Run jobs; whatever happens, each of them is ended or given back."""
        with Lease(self._claims, assignments, self._worker_stops, self._patience) as lease:
            try:
                if isinstance(assignments[0].request, PersonalizeRequest):
                    self._personalize(lease, assignments[0], assignments[0].request)
                else:
                    self._generate(lease, assignments)
            except errors.JobCanceled:
                lease.give_back(counted=False)  # what is left by now was not canceled: the worker has to stop
            except SoftTimeLimitExceeded:
                _log.warning("job.out_of_time")
                late = errors.OutOfTime("The job took longer than is allowed; ask for fewer steps or pictures.")
                self._fail(lease, late)
            except errors.Unavailable as error:
                attempts = max(each.claim.attempt for each in assignments)
                lease.give_back(counted=True, error=error, delay=_RETRY_SECONDS * attempts)
            except errors.HyperDreamBoothError as error:
                _log.info("job.rejected", extra={"code": error.code})
                if len(assignments) == 1:
                    self._fail(lease, error)
                else:
                    lease.give_back(counted=True, error=error)  # each alone, so that the others do not suffer
            except Exception as error:  # noqa: BLE001 - a job's fault must not take the worker along
                _log.exception("job.crashed")
                fault = errors.InternalFault(f"The worker failed with {type(error).__name__}.")
                lease.give_back(counted=True, error=fault)

    def _personalize(self, lease: Lease, assignment: Assignment, request: PersonalizeRequest) -> None:
        """Photos to weights: the engine's work, stored under this attempt's keys, and committed."""
        began = time.monotonic()
        previews: list[Preview] = []

        def publish_preview(data: bytes) -> None:
            key, before = self._store_weights(lease, assignment, "preview", data), [each.image for each in previews]
            image = self._draw(lease, assignment, request, data, number=len(before))
            previews.append(Preview(weights_key=key, image=image, before=tuple(before)))
            lease.publish(assignment, previews[-1])

        made = self._engine.personalize(
            pictures.stack([pictures.decode(self._subjects.read(key)) for key in request.photos]),
            options_of(request, self._subjects.read(request.start_key) if request.start_key else None),
            on_progress=lease.on_progress,
            on_preview=publish_preview,
            should_stop=lease.should_stop,
        )
        weights = Weights(
            refined_key=self._store_weights(lease, assignment, "refined", made.weights),
            preview_key=previews[-1].weights_key if previews else None,
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
        self._commit(lease, assignment, result, {**made.seconds, "total": time.monotonic() - began})

    def _draw(
        self, lease: Lease, assignment: Assignment, request: PersonalizeRequest, weights: bytes, *, number: int
    ) -> Image:
        """A picture of the subject before its weights are done; ``number`` says which of them it is."""
        prompt = f"a [V] {request.class_noun or 'face'}"
        pixels = self._engine.preview(
            Row(prompt, "", weights, request.seed, None),
            on_progress=lambda _, step, total: lease.on_progress("preview", step, total),
            should_stop=lease.should_stop,
        )
        lease.require(assignment)
        return self._store_picture(assignment, prompt, number, request.seed, pixels)

    def _generate(self, lease: Lease, assignments: list[Assignment]) -> None:
        """Prompts to pictures: the rows of all jobs as one batch, split again and committed job by job."""
        began = time.monotonic()
        batch = self._open_weights(lease, assignments)
        if not batch:
            return
        first = batch[0][1]
        made = self._engine.generate(
            [row for _, _, rows in batch for row in rows],
            steps=first.steps,
            height=first.height,
            width=first.width,
            on_progress=lease.on_progress,
            should_stop=lease.should_stop,
        )
        seconds = {"generate": time.monotonic() - began}
        remaining = iter(made)
        for assignment, request, rows in batch:
            pixels = [next(remaining) for _ in rows]
            if assignment in lease.live:
                images = tuple(
                    self._store_picture(assignment, request.prompt, index, request.seed + index, each)
                    for index, each in enumerate(pixels)
                )
                seconds["total"] = time.monotonic() - began
                self._commit(lease, assignment, GenerateResult(images=images), seconds)

    def _open_weights(
        self, lease: Lease, assignments: list[Assignment]
    ) -> list[tuple[Assignment, GenerateRequest, list[Row]]]:
        """The rows of each job; one whose subject was deleted meanwhile ends here, and the others go on."""
        batch = []
        for assignment in assignments:
            request = assignment.request
            if isinstance(request, GenerateRequest):
                try:
                    weights = self._weights(assignment.job.tenant, request)
                except (errors.SubjectNotFound, errors.SubjectNotReady) as error:
                    lease.release(assignment, partial(self._claims.fail, error=error))
                    continue
                batch.append((assignment, request, rows_of(request, weights)))
        return batch

    def _weights(self, tenant: str, request: GenerateRequest) -> bytes | tuple[Part, ...]:
        """The weights of the subject, or of all those in the blend. Raises SubjectNotFound, SubjectNotReady."""
        pinned = partial(self._subjects.pinned_weights, tenant, stage=request.stage)
        if not request.blend:
            return pinned(request.subject_id, request.weights_key)
        return tuple(Part(pinned(share.subject_id, share.weights_key), share.weight) for share in request.blend)

    def _store_weights(self, lease: Lease, assignment: Assignment, name: str, data: bytes) -> str:
        lease.require(assignment)
        return self._claims.store(assignment, f"{name}.lidb", data, content_type="application/octet-stream")

    def _store_picture(self, work: Assignment, prompt: str, index: int, seed: int, pixels: pictures.Pixels) -> Image:
        subjects = ", ".join(work.job.subject_ids)
        png = pictures.encode(pixels, prompt=prompt, seed=seed, subject_id=subjects)
        key = self._claims.store(work, f"{index}.png", png, content_type="image/png")
        height, width = pixels.shape[:2]
        return Image(id=image_id(work.job.id, index), key=key, seed=seed, width=width, height=height)

    def _commit(self, lease: Lease, assignment: Assignment, result: Result, seconds: dict[str, float]) -> None:
        rounded = {stage: round(value, 3) for stage, value in seconds.items()}
        lease.release(assignment, partial(self._claims.commit, result=result, seconds=rounded))
        _log.info("job.done", extra={"job_id": assignment.job.id, "seconds": rounded})

    def _fail(self, lease: Lease, error: errors.HyperDreamBoothError) -> None:
        for assignment in lease.live:
            lease.release(assignment, partial(self._claims.fail, error=error))
