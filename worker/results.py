"""What jobs made, on its way into the store and the ledger; outages are outlasted.

Each attempt writes under keys of its own, and the first commit is the one that counts.
"""

from __future__ import annotations

import logging
from functools import partial

from core import errors
from core.jobs.claims import Assignment, Claims
from core.records import GenerateRequest, Image, PersonalizeRequest, PictureNote, Result
from core.storage.keys import image_id
from worker import metrics, pictures
from worker.lease import Lease
from worker.shared import Shared

_log = logging.getLogger(__name__)


class Results:
    """Stores and commits for one runner."""

    def __init__(self, claims: Claims, shared: Shared, *, measured: bool) -> None:
        """`measured`: whether what is committed is for the metrics."""
        self._claims = claims
        self._shared = shared
        self._measured = measured

    def store(self, lease: Lease, assignment: Assignment, name: str, data: bytes) -> str:
        """Store weights or embeddings under a key of this attempt, and return that. Raises JobCanceled."""
        return self._put(lease, assignment, name, data, "application/octet-stream")

    def store_picture(
        self,
        lease: Lease,
        work: Assignment,
        request: GenerateRequest | PersonalizeRequest,
        index: int,
        pixels: pictures.Pixels,
        *,
        likeness: float | None = None,
    ) -> Image:
        """Store a picture that says what its request wants; a preview says nothing, and has its job's seed."""
        seed, said = request.seed, dict[PictureNote, str]()
        if isinstance(request, GenerateRequest):
            seed = request.seeds[index]
            said = pictures.notes_of(request, seed)
        self._put(lease, work, f"{index}.png", pictures.encode(pixels, said), "image/png")
        height, width = pixels.shape[:2]
        name = image_id(work.job.id, index)
        return Image(id=name, seed=seed, width=width, height=height, likeness=likeness)

    def commit(self, lease: Lease, assignment: Assignment, result: Result, seconds: dict[str, float]) -> None:
        """End the job with its result; `seconds` are those of its stages."""
        rounded = {stage: round(value, 3) for stage, value in seconds.items()}
        lease.release(assignment, partial(self._claims.commit, result=result, seconds=rounded))
        self._shared.note_success()
        with assignment.logged():
            _log.info("job.done", extra={"seconds": rounded})
        if self._measured:
            metrics.observe_stages(assignment.job.kind.value, rounded)

    def fail(self, lease: Lease, error: errors.HyperDreamBoothError) -> None:
        """End all jobs of the lease with this error."""
        for assignment in lease.live:
            lease.release(assignment, partial(self._claims.fail, error=error), error=error.code)

    def _put(self, lease: Lease, assignment: Assignment, name: str, data: bytes, content_type: str) -> str:
        """Keep something that was made until the store has it. Raises JobCanceled when it is not wanted any more."""

        def put() -> str:
            lease.require(assignment)
            return self._claims.store(assignment, name, data, content_type=content_type)

        return lease.outlast(put)
