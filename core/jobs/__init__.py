"""Jobs: accepted means durable, done once, and deletion wins.

model.py    what a job, a request, a result, a subject are
keys.py     where they live in the store and in Redis
archive.py  the store's side: requests, outcomes, subjects, tombstones
batches.py  many generations at once; drafting.py takes them in, feeding.py takes them to the queue
ledger.py   Redis' side: who is doing what (lua/ has the transitions)
listing.py  the names of all jobs, newest first, in the store
pages.py    a page of that list
events.py   what those who follow a job are told
idempotency.py  answers that were given, and who is giving one
usage.py    how much each tenant had done, by day
layouts.py  what the API has to know of base models
photos.py   more photos of somebody who is here already
webhooks.py where tenants want to be told, and what they are told
schedule.py when each of them is told next: Redis' side of it (core/webhooks/ tells them)
service.py  both together: what the API and the worker call

Who wants only the words (states, kinds) gets no queue and no store with them: `Jobs` is loaded when it is asked for.
"""

from typing import TYPE_CHECKING, Any

from core.jobs.model import (
    LOCAL_TENANT,
    Consent,
    Failure,
    GenerateRequest,
    GenerateResult,
    Image,
    Job,
    JobKind,
    JobState,
    PersonalizeRequest,
    PersonalizeResult,
    Preview,
    Receipt,
    Request,
    Result,
    Share,
    Subject,
    SubjectStatus,
    Weights,
    WeightsStage,
    new_id,
)

if TYPE_CHECKING:
    from core.jobs.service import Jobs, open_jobs

__all__ = [
    "LOCAL_TENANT",
    "Consent",
    "Failure",
    "GenerateRequest",
    "GenerateResult",
    "Image",
    "Job",
    "JobKind",
    "JobState",
    "Jobs",
    "PersonalizeRequest",
    "PersonalizeResult",
    "Preview",
    "Receipt",
    "Request",
    "Result",
    "Share",
    "Subject",
    "SubjectStatus",
    "Weights",
    "WeightsStage",
    "new_id",
    "open_jobs",
]


def __getattr__(name: str) -> Any:
    if name not in ("Jobs", "open_jobs"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from core.jobs import service  # noqa: PLC0415 - that is the point

    return getattr(service, name)
