"""A page of a tenant's pictures: those of the jobs that generated, newest first."""

from __future__ import annotations

from dataclasses import dataclass

from core.jobs import pages
from core.jobs.archive import JobArchive
from core.jobs.ledger import Ledger
from core.jobs.pages import MOST_RECORDS, JobFilter
from core.records import GenerateResult, GenerationOptions, Image, Job, JobKind, JobState
from core.storage.keys import image_id, job_of_image

_BEHIND_ALL = 9999
"""A number that no picture of a job has: the cursor of what comes after all of them."""


@dataclass(frozen=True)
class PictureFilter:
    """Which pictures; None: any. `prompt` is a part of their prompt, in capital or small letters."""

    subject_id: str | None = None
    job_id: str | None = None
    prompt: str | None = None

    def matches(self, job: Job, options: GenerationOptions | None) -> bool:
        """Whether the pictures of the job, which has succeeded, are among these."""
        if self.subject_id not in (None, *job.subject_ids):
            return False
        return self.prompt is None or (options is not None and self.prompt.casefold() in options.prompt.casefold())


@dataclass(frozen=True)
class Picture:
    """A picture, the job that made it, and what was asked for."""

    image: Image
    job: Job
    options: GenerationOptions | None


@dataclass(frozen=True)
class PicturePage:
    """Pictures, newest first; `after` asks for the next page, None: there are no more."""

    pictures: list[Picture]
    after: str | None


def page(
    archive: JobArchive, ledger: Ledger, tenant: str, matching: PictureFilter, *, limit: int, after: str = ""
) -> PicturePage:
    """The newest pictures of those that match that are older than the picture `after`, at most `limit`.

    A page can have fewer, or none, although there are more: when MOST_RECORDS jobs were read for it. Raises
    StoreUnavailable, and BrokerUnavailable as `pages.page` does.
    """
    job_id = matching.job_id or (job_of_image(after) if after else "")
    begun = pages.read(archive, ledger, tenant, [job_id]) if job_id else []
    found = [each for job, _ in begun for each in _pictures(archive, job, matching) if not _is_before(each, after)]
    start: str | None = None if matching.job_id else job_id
    only = JobFilter(JobState.SUCCEEDED, JobKind.GENERATE, matching.subject_id)
    read = 0
    while start is not None and len(found) <= limit and read < MOST_RECORDS:
        jobs = pages.page(archive, ledger, tenant, only, limit=limit, after=start)
        found += [each for job, _ in jobs.jobs for each in _pictures(archive, job, matching)]
        start, read = jobs.after, read + limit
    if len(found) > limit:
        return PicturePage(found[:limit], found[limit - 1].image.id)
    return PicturePage(found, image_id(start, _BEHIND_ALL) if start else None)


def _pictures(archive: JobArchive, job: Job, matching: PictureFilter) -> list[Picture]:
    if not isinstance(job.result, GenerateResult):
        return []
    options = job.result.options or archive.options(job)
    if not matching.matches(job, options):
        return []
    return [Picture(image, job, options) for image in job.result.images]


def _is_before(picture: Picture, after: str) -> bool:
    """Whether a picture of the job of the picture `after` has been on a page."""
    return job_of_image(after) == picture.job.id and _number(picture.image.id) <= _number(after)


def _number(identifier: str) -> int:
    return int(identifier.rpartition("-")[2])
