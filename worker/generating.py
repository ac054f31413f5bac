"""Generating jobs to pictures: the rows of all jobs as one batch, split again and committed job by job."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial

import numpy as np

from core import errors
from core.jobs.claims import Assignment, Claims
from core.records import GenerateRequest, GenerateResult, Image, SubjectStatus
from core.subjects.service import SubjectService
from worker import identities, metrics, pictures
from worker.engine import Engine, Part, Row, rows_of
from worker.lease import Lease
from worker.results import Results


class Generator:
    """Runs generating jobs on the engine."""

    def __init__(
        self,
        engine: Engine,
        claims: Claims,
        subjects: SubjectService,
        results: Results,
        *,
        retry: float,
        most_rows: int | None,
    ) -> None:
        """`retry`: see Patience; `most_rows`: how many a batch may have, for the metrics (None: not measured)."""
        self._engine = engine
        self._claims = claims
        self._subjects = subjects
        self._results = results
        self._retry = retry
        self._most_rows = most_rows

    def run(self, lease: Lease, assignments: Sequence[Assignment]) -> None:
        """Prompts to pictures. Raises what the engine and the store do."""
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
        if self._most_rows:
            metrics.observe_batch(len(made), self._most_rows)
        seconds = {"generate": time.monotonic() - began}
        remaining = iter(made)
        for assignment, request, rows in batch:
            pixels = [next(remaining) for _ in rows]
            with assignment.logged():
                try:
                    images = self._store_pictures(lease, assignment, request, pixels)
                except errors.JobCanceled:
                    if assignment in lease.live:
                        raise
                    continue  # the others are wanted
                seconds["total"] = time.monotonic() - began
                result = GenerateResult(images=images, options=request.options)
                self._results.commit(lease, assignment, result, seconds)

    def _store_pictures(
        self, lease: Lease, assignment: Assignment, request: GenerateRequest, made: Sequence[pictures.Pixels]
    ) -> tuple[Image, ...]:
        """The pictures of one job. Raises JobCanceled when they are not wanted any more."""
        lease.require(assignment)
        alike = lease.outlast(partial(self._likenesses, assignment.job.tenant, request, made))
        return tuple(
            self._results.store_picture(lease, assignment, request, index, each, likeness=alike[index])
            for index, each in enumerate(made)
        )

    def _open_weights(
        self, lease: Lease, assignments: Sequence[Assignment]
    ) -> list[tuple[Assignment, GenerateRequest, list[Row]]]:
        """The rows of each job. One whose subject was deleted ends here, and one whose preview is made anew waits."""
        batch = []
        for assignment in assignments:
            request = assignment.request
            if isinstance(request, GenerateRequest):
                try:
                    weights = self._weights(assignment.job.tenant, request)
                except (errors.SubjectNotFound, errors.SubjectNotReady) as error:
                    if isinstance(error, errors.SubjectNotReady) and self._is_personalizing(assignment):
                        again = partial(self._claims.give_back, counted=False, error=error, delay=self._retry)
                        lease.release(assignment, again)
                        continue
                    lease.release(assignment, partial(self._claims.fail, error=error), error=error.code)
                    continue
                batch.append((assignment, request, rows_of(request, weights)))
        return batch

    def _is_personalizing(self, assignment: Assignment) -> bool:
        subjects = (self._subjects.get(assignment.job.tenant, each) for each in assignment.job.subject_ids)
        return any(subject.status is SubjectStatus.PERSONALIZING for subject in subjects)

    def _weights(self, tenant: str, request: GenerateRequest) -> bytes | tuple[Part, ...]:
        """The weights of the subject, or of all those in the blend. Raises SubjectNotFound, SubjectNotReady."""
        pinned = partial(self._subjects.pinned_weights, tenant, stage=request.stage)
        if not request.blend:
            return pinned(request.subject_id, request.weights_key)
        return tuple(Part(pinned(share.subject_id, share.weights_key), share.weight) for share in request.blend)

    def _likenesses(self, tenant: str, request: GenerateRequest, made: Sequence[pictures.Pixels]) -> list[float | None]:
        """How alike each picture is to the photos; None for blends, and for weights of earlier versions."""
        unknown: list[float | None] = [None] * len(made)
        if request.blend:
            return unknown
        try:
            key = self._subjects.pinned_key(tenant, request.subject_id, request.weights_key, request.stage)
            identity = self._subjects.read(tenant, identities.key_beside(key))
        except (errors.SubjectNotFound, errors.SubjectNotReady):
            return unknown
        return identities.likenesses(identity, self._engine.embed(np.stack(made))) or unknown
