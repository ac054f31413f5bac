"""What the worker does when its bell rings: bytes from the store become pixels, the engine runs, pixels become bytes.

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

from core.errors import (
    HyperDreamBoothError,
    InternalFault,
    JobCanceled,
    ObjectNotFound,
    OutOfTime,
    StoreUnavailable,
    SubjectNotFound,
    SubjectNotReady,
    Unavailable,
)
from core.jobs.claims import Assignment, Work
from core.log import log_context
from core.records import (
    GenerateRequest,
    GenerateResult,
    Image,
    JobKind,
    PersonalizeRequest,
    PersonalizeResult,
    Preview,
    Weights,
    WeightsStage,
)
from core.storage.keys import image_id
from core.subjects import export_layouts as layouts
from worker import pictures
from worker.engine import Engine, Part, PersonalizeOptions, Row
from worker.lease import Lease, Patience

_log = logging.getLogger(__name__)
_RETRY_SECONDS = 5.0


@dataclass(frozen=True)
class BatchLimits:
    """How many generating jobs, and how many pictures, one batch may have."""

    jobs: int = 8
    rows: int = 16


class JobRunner:
    """Answers the notifier: claims jobs, runs them on the engine, and hands in what came of it."""

    def __init__(
        self,
        work: Work,
        engine: Engine,
        *,
        told_to_stop: Callable[[], bool],
        patience: Patience,
        batch: BatchLimits,
    ) -> None:
        self._work = work
        self._engine = engine
        self._told_to_stop = told_to_stop
        self._patience = patience
        self._batch = batch
        self._described = False

    def answer(self, kind: JobKind, ref: str) -> int:
        """Do the job that the bell was rung for, or what waits in its stead; gives how many jobs were taken."""
        if self._told_to_stop():
            self._work.jobs.notify(kind, ref)
            return 0
        several = kind is JobKind.GENERATE
        assignments = self._work.claim(
            kind, ref, max_jobs=self._batch.jobs if several else 1, max_rows=self._batch.rows
        )
        if assignments:
            first = assignments[0].job
            with log_context(job_id=first.id, request_id=first.request_id):
                _log.info("job.claimed", extra={"kind": kind.value, "jobs": len(assignments)})
                if kind is JobKind.PERSONALIZE or not self._described:
                    self._describe_bundle()
                self._run(assignments)
        return len(assignments)

    def _describe_bundle(self) -> None:
        """Let the API know what it needs to export weights of this bundle; at every new person, for it is little."""
        pins = self._engine.layout.pins
        try:
            store, layout = self._work.jobs.archive.store, self._engine.layout.to_json()
            layouts.write_down(store, str(pins["fingerprint"]), str(pins["basis"]), layout)
            self._described = True
        except StoreUnavailable:
            _log.warning("worker.layout_not_stored", exc_info=True)

    def _run(self, assignments: list[Assignment]) -> None:
        """Run jobs; whatever happens, each of them is ended or given back."""
        with Lease(self._work, assignments, self._told_to_stop, self._patience) as lease:
            try:
                if isinstance(assignments[0].request, PersonalizeRequest):
                    self._personalize(lease, assignments[0], assignments[0].request)
                else:
                    self._generate(lease, assignments)
            except JobCanceled:
                lease.give_back(counted=False)  # what is left by now was not canceled: the worker has to stop
            except SoftTimeLimitExceeded:
                _log.warning("job.out_of_time")
                self._fail(lease, OutOfTime("The job took longer than is allowed; ask for fewer steps or pictures."))
            except Unavailable as error:
                attempts = max(each.claim.attempt for each in assignments)
                lease.give_back(counted=True, error=error, delay=_RETRY_SECONDS * attempts)
            except HyperDreamBoothError as error:
                _log.info("job.rejected", extra={"code": error.code})
                if len(assignments) == 1:
                    self._fail(lease, error)
                else:
                    lease.give_back(counted=True, error=error)  # each alone, so that the others do not suffer
            except Exception as error:  # noqa: BLE001 - a job's fault must not take the worker along
                _log.exception("job.crashed")
                lease.give_back(counted=True, error=InternalFault(f"The worker failed with {type(error).__name__}."))

    def _personalize(self, lease: Lease, assignment: Assignment, request: PersonalizeRequest) -> None:
        """Photo to weights: the engine's work, stored under this attempt's keys, and committed."""
        began = time.monotonic()

        def store(name: str, data: bytes) -> str:
            lease.insist(assignment)
            job, archive = assignment.job, self._work.jobs.archive
            return archive.put_attempt(job, f"{name}.lidb", data, content_type="application/octet-stream")

        shown: list[Preview] = []

        def show_preview(data: bytes) -> None:
            key, before = store("preview", data), tuple(preview.image for preview in shown)
            image = self._draw(lease, assignment, request, data, number=len(before))
            shown.append(Preview(weights_key=key, image=image, before=before))
            lease.show(assignment, shown[-1])

        photos = pictures.stack([pictures.decode(self._read(key)) for key in request.photos])
        made = self._engine.personalize(
            photos,
            PersonalizeOptions(
                request.rank,
                request.steps,
                request.seed,
                request.class_noun,
                self._read(request.start_key) if request.start_key else None,
            ),
            on_progress=lease.on_progress,
            on_preview=show_preview,
            should_stop=lease.should_stop,
        )
        weights = Weights(
            refined_key=store("refined", made.weights),
            preview_key=shown[-1].weights_key if shown else None,
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
        """A picture of somebody whose weights are not done; ``number`` says which of them it is."""
        prompt = f"a [V] {request.class_noun or 'face'}"
        pixels = self._engine.preview(
            Row(prompt, "", weights, request.seed, None),
            on_progress=lambda _, step, total: lease.on_progress("preview", step, total),
            should_stop=lease.should_stop,
        )
        lease.insist(assignment)
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
        start = 0
        for assignment, request, rows in batch:
            mine = made[start : start + len(rows)]
            start += len(rows)
            if assignment in lease.live:
                images = tuple(
                    self._store_picture(assignment, request.prompt, index, request.seed + index, pixels)
                    for index, pixels in enumerate(mine)
                )
                total = {"total": time.monotonic() - began}
                self._commit(lease, assignment, GenerateResult(images=images), {**seconds, **total})

    def _open_weights(
        self, lease: Lease, assignments: list[Assignment]
    ) -> list[tuple[Assignment, GenerateRequest, list[Row]]]:
        """The rows of each job; one whose subject was deleted meanwhile ends here, without the others noticing."""
        batch = []
        for assignment in assignments:
            asked = assignment.request
            if isinstance(asked, GenerateRequest):
                try:
                    weights = self._weights(assignment.job.tenant, asked)
                except (SubjectNotFound, SubjectNotReady) as error:
                    lease.release(assignment, partial(self._work.fail, error=error))
                    continue
                seeds = range(asked.seed, asked.seed + asked.n)
                rows = [Row(asked.prompt, asked.negative_prompt, weights, seed, asked.guidance_scale) for seed in seeds]
                batch.append((assignment, asked, rows))
        return batch

    def _weights(self, tenant: str, asked: GenerateRequest) -> bytes | tuple[Part, ...]:
        """The weights of the subject, or of everybody in the blend. Raises SubjectNotFound, SubjectNotReady."""
        if not asked.blend:
            return self._pinned(tenant, asked.subject_id, asked.weights_key, asked.stage)
        return tuple(
            Part(self._pinned(tenant, share.subject_id, share.weights_key, asked.stage), share.weight)
            for share in asked.blend
        )

    def _pinned(self, tenant: str, subject_id: str, key: str, stage: WeightsStage) -> bytes:
        """What the request has pinned; of a preview, which each attempt makes anew, the one that is there.

        Raises SubjectNotFound: it was deleted meanwhile. SubjectNotReady: its personalising came to nothing.
        """
        if stage is WeightsStage.PREVIEW and not self._work.jobs.archive.store.exists(key):
            return self._work.jobs.weights(tenant, subject_id, stage)
        return self._read(key)

    def _store_picture(
        self, assignment: Assignment, prompt: str, index: int, seed: int, pixels: pictures.Pixels
    ) -> Image:
        subjects = ", ".join(assignment.job.subject_ids)
        png = pictures.encode(pixels, prompt=prompt, seed=seed, subject_id=subjects)
        key = self._work.jobs.archive.put_attempt(assignment.job, f"{index}.png", png, content_type="image/png")
        height, width = pixels.shape[:2]
        return Image(id=image_id(assignment.job.id, index), key=key, seed=seed, width=width, height=height)

    def _commit(
        self,
        lease: Lease,
        assignment: Assignment,
        result: PersonalizeResult | GenerateResult,
        seconds: dict[str, float],
    ) -> None:
        rounded = {stage: round(value, 3) for stage, value in seconds.items()}
        lease.release(assignment, partial(self._work.commit, result=result, seconds=rounded))
        _log.info("job.done", extra={"job_id": assignment.job.id, "seconds": rounded})

    def _fail(self, lease: Lease, error: HyperDreamBoothError) -> None:
        for assignment in lease.live:
            lease.release(assignment, partial(self._work.fail, error=error))

    def _read(self, key: str) -> bytes:
        """An object that a subject must have. Raises SubjectNotFound: it was deleted meanwhile."""
        try:
            return self._work.jobs.archive.store.get(key)
        except ObjectNotFound:
            raise SubjectNotFound("The subject was deleted.") from None
