# Made by `make generate` from aio/jobs.py: change that.
"""Jobs: generating, waiting, events, pictures."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any, Unpack

from hyperdreambooth.client.callbacks import call
from hyperdreambooth.client.events import StreamedJobEvent
from hyperdreambooth.client.forms import generation
from hyperdreambooth.client.options import GenerateOptions
from hyperdreambooth.client.problem import Problem
from hyperdreambooth.client.refs import ImageFormat, ImageRef, JobRef, SubjectOrBlend, SubjectRef, job_id_of
from hyperdreambooth.client.request import ApiRequest, answer_as, change, content, create, get, id_of, path_of
from hyperdreambooth.client.sync.connection import Connection
from hyperdreambooth.client.waiting import EventSubscription, JobWaiter
from hyperdreambooth.schemas import JobAnswer, JobKind, JobPage, JobStatus, PictureAnswer, PicturePage


class Jobs(Connection):
    """The methods for jobs and their pictures."""

    def generate(self, subject: SubjectOrBlend, prompt: str, **options: Unpack[GenerateOptions]) -> JobAnswer:
        """Start to make `n` pictures of a subject, or of a blend of several; returns a job to `wait` for."""
        return self._send(create("generations", read=answer_as(JobAnswer), json=generation(subject, prompt, options)))

    def jobs(
        self, *, status: JobStatus | None = None, kind: JobKind | None = None, subject: SubjectRef | None = None
    ) -> Iterator[JobAnswer]:
        """Jobs, newest first, read a page at a time; only those with this status, of this kind, of this subject."""
        subject_id = None if subject is None else id_of(subject)
        read = answer_as(JobPage)
        for page in self._pages("jobs", read=read, status=status, kind=kind, subject_id=subject_id):
            for job in page.jobs:
                yield job

    def job(self, job: JobRef, *, wait: int = 0) -> JobAnswer:
        """The job as it is now, or when it is over, or after `wait` seconds (at most 60)."""
        options = {"headers": {"Prefer": f"wait={wait}"} if wait else {}}
        path = path_of("jobs", job_id_of(job))
        return self._send(ApiRequest("GET", path, answer_as(JobAnswer), extra_seconds=wait, options=options))

    def wait(
        self,
        job: JobRef,
        *,
        on_progress: Callable[[JobAnswer], Any] | None = None,
        timeout: float | None = None,
    ) -> JobAnswer:
        """Wait until the job has succeeded; `on_progress` is called with it first, and whenever it has changed.

        Raises also JobFailed when the job ends otherwise, and TimeoutError after `timeout` seconds: the job goes on.
        """
        waiter = JobWaiter(job, timeout)
        for seen in self._poll(waiter) if on_progress is None else self._listen(waiter):
            if on_progress:
                call(on_progress, seen)
        return waiter.result()

    def events(self, job: JobRef, *, last_event_id: str = "") -> Iterator[StreamedJobEvent]:
        """The events of a job as they happen, until it is over, first those after `last_event_id`.

        A connection that breaks is made anew, without a gap.
        """
        return self._events(EventSubscription(job, last_event_id))

    def cancel(self, job: JobRef) -> JobAnswer:
        """Ask a job to stop."""
        read = answer_as(JobAnswer)
        return self._send(change("POST", "jobs", job_id_of(job), "cancel", read=read, repeatable=False))

    def pictures(
        self, *, subject: SubjectRef | None = None, job: JobRef | None = None, prompt: str | None = None
    ) -> Iterator[PictureAnswer]:
        """Pictures, newest first, with what each was made with; only those of this subject, of this job, with this in
        their prompt.
        """
        subject_id = None if subject is None else id_of(subject)
        job_id = None if job is None else job_id_of(job)
        read = answer_as(PicturePage)
        for page in self._pages("images", read=read, subject_id=subject_id, job_id=job_id, prompt=prompt):
            for picture in page.images:
                yield picture

    def image(self, image: ImageRef, *, kind: ImageFormat = "png") -> bytes:
        """A picture's bytes."""
        return self._send(get("images", id_of(image), read=content, headers={"Accept": f"image/{kind}"}))

    def _poll(self, waiter: JobWaiter, *, until_over: bool = True) -> Iterator[JobAnswer]:
        """The job whenever a read shows a change, until it is over."""
        while not waiter.is_over:
            if seen := waiter.on_poll(self._send(waiter.poll(until_over=until_over))):
                yield seen
            if not waiter.is_over:
                time.sleep(waiter.pause())

    def _listen(self, waiter: JobWaiter) -> Iterator[JobAnswer]:
        """The job whenever an event or, where there are none, a read shows a change, until it is over."""
        if seen := waiter.on_poll(self._send(waiter.poll(until_over=False))):
            yield seen
        try:
            if not waiter.is_over:
                subscription = EventSubscription(waiter.job_id, deadline=waiter.deadline)
                with closing(self._events(subscription)) as events:
                    for event in events:
                        if seen := waiter.on_event(event):
                            yield seen
        except Problem as problem:
            if not waiter.can_poll_after(problem):
                raise
        for seen in self._poll(waiter, until_over=False):
            yield seen
