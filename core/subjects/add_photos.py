"""More photos of somebody who is here already: the subject goes on with its weights until new ones are there.

Photos that were kept are learnt from again, together with the new ones. Where none were kept, the subject's refined
weights are what personalising starts from. A job that comes to nothing leaves the subject as it was.

    hdb:{tenant}:adding:{subject}   somebody is adding photos to the subject just now; ends with the call, or in 30 s
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from redis import Redis

from core.errors import BrokerUnavailable, InvalidInput, SubjectBusy, SubjectNotFound
from core.ids import new_id
from core.jobs.archive import Accepted, Archive
from core.queue.connection import redis_errors
from core.records import Consent, Job, JobKind, PersonalizeRequest, Subject, SubjectStatus
from core.storage import keys

if TYPE_CHECKING:
    from core.jobs.service import Jobs

MAX_PHOTOS = 24
"""How many photos a subject may be sent in all."""
_ADDING_SECONDS = 30


def add_photos(
    desk: Jobs,
    tenant: str,
    subject_id: str,
    photos: Sequence[bytes],
    *,
    consent: Consent,
    keep_photos: bool | None = None,
    request_id: str = "",
    **options: Any,
) -> tuple[Subject, Job]:
    """Store more aligned PNGs of a subject and accept a personalising job; `options` are rank, steps and seed.

    `keep_photos`: keep these and later ones for refining; None: as the subject has it. When this returns, the request
    is durable. Raises SubjectNotFound, SubjectBusy, InvalidInput, QueueFull, BrokerUnavailable: then nothing changed.
    """
    desk.refuse_when_full(JobKind.PERSONALIZE)
    with _alone(desk.ledger.redis, tenant, subject_id):
        subject = desk.subject(tenant, subject_id)
        refuse(subject, len(photos))
        job_id = new_id("job")
        folder = keys.photos(tenant, subject_id, job_id)
        names = tuple(f"{folder}{index}.png" for index in range(len(photos)))
        request = PersonalizeRequest(
            subject_id=subject_id,
            photos=(*subject.photos, *names),
            class_noun=subject.class_noun,
            start_key=subject.weights.refined_key if subject.weights and not subject.photos else "",
            **options,
        )
        accepted = Accepted(
            tenant=tenant, job_id=job_id, created_at=time.time(), request_id=request_id, request=request
        )
        refined = subject.model_copy(
            update={
                "status": SubjectStatus.READY if subject.weights else SubjectStatus.PERSONALIZING,
                "refining": subject.weights is not None,
                "job_id": job_id,
                "consents": (*subject.consents, consent),
                "photos": request.photos,
                "photos_sent": subject.photos_sent + len(photos),
                "keep_photos": subject.keep_photos if keep_photos is None else keep_photos,
                "error": None,
            }
        )

        def store_all() -> None:
            for key, photo in zip(names, photos, strict=True):
                desk.archive.store.put(key, photo, content_type="image/png")
            desk.archive.put_subject(refined)
            desk.archive.subject(tenant, subject_id)  # a deletion that began meanwhile is seen here, or finds the job

        return refined, desk.accept(accepted, store_all, _undo(desk.archive, subject, folder))


def refuse(subject: Subject, count: int) -> None:
    """Raises SubjectBusy while the subject is personalised, InvalidInput for more photos than it may have."""
    if subject.is_busy:
        raise SubjectBusy(f"Wait until job {subject.job_id} is over, or cancel it, and send the photos again.")
    left = MAX_PHOTOS - subject.photos_sent
    if count > left:
        raise InvalidInput(
            f"A subject has at most {MAX_PHOTOS} photos in all, and {subject.photos_sent} were sent: "
            + (f"send {left} at most." if left else "the weights stay as they are."),
            field="photo",
        )


def _undo(archive: Archive, before: Subject, folder: str) -> Callable[[], None]:
    def undo() -> None:
        archive.store.delete_prefix(folder)
        try:
            archive.subject(before.tenant, before.id)
        except SubjectNotFound:  # deleted meanwhile: what was just written must not stay
            archive.store.delete_prefix(keys.subject(before.tenant, before.id))
        else:
            archive.put_subject(before)

    return undo


@contextlib.contextmanager
def _alone(redis: Redis, tenant: str, subject_id: str) -> Iterator[None]:
    """Nobody else adds photos to the subject meanwhile: two jobs at once would each undo what the other has done."""
    key = f"hdb:{tenant}:adding:{subject_id}"
    with redis_errors():
        if not redis.set(key, "1", ex=_ADDING_SECONDS, nx=True):
            raise SubjectBusy(
                "Photos are being added to this subject just now; wait for that job, and send them again."
            )
    try:
        yield
    finally:
        with contextlib.suppress(BrokerUnavailable), redis_errors():
            redis.delete(key)
