"""The blocking client."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self, TypeVar, Unpack

import httpx

from hyperdreambooth import schemas
from hyperdreambooth.client import calls
from hyperdreambooth.client.call import Call, Page, given, id_of
from hyperdreambooth.client.calls import (
    BatchRef,
    GenerateOptions,
    ImageKind,
    ImageRef,
    JobRef,
    Photo,
    PhotoOptions,
    Stage,
    SubjectOptions,
    SubjectRef,
    WebhookRef,
    WeightsFormat,
    Whose,
)
from hyperdreambooth.client.events import Event
from hyperdreambooth.client.problem import Problem
from hyperdreambooth.client.retry import DEFAULT_RETRY, Attempts, Retry
from hyperdreambooth.client.watch import BATCH_INTERVAL, Deadline, Following, Watch, must_be_polled
from hyperdreambooth.schemas import ItemStatus, JobKind, JobStatus
from hyperdreambooth.schemas.batches import BatchAnswer, BatchDeleted, BatchItemAnswer
from hyperdreambooth.schemas.webhooks import DeliveryAnswer, WebhookAnswer, WebhookCreated, WebhookEventName

T = TypeVar("T")
PageT = TypeVar("PageT", bound=Page)
Listener = Callable[[schemas.JobAnswer], Any]

DEFAULT_URL = "http://127.0.0.1:8000"
DEFAULT_TIMEOUT = 30.0


class Client:
    """One service, for all threads. Close it, or use it in a `with` block. All methods raise Problem."""

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        api_key: str | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        retry: Retry = DEFAULT_RETRY,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """`timeout` is for each answer (and piece of one) in seconds; `retry` says when a request is sent again."""
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._http = httpx.Client(base_url=url, headers=headers, transport=transport)
        self._timeout = timeout
        self._retry = retry

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def personalize(
        self,
        photos: Photo | Sequence[Photo],
        *,
        consent: bool,
        on_progress: Listener | None = None,
        timeout: float | None = None,
        **options: Unpack[SubjectOptions],
    ) -> schemas.SubjectAnswer:
        """Upload photos of one person, and wait until pictures can be made of that person: `create_subject` and `wait`.

        `consent`: that person has agreed. Raises also JobFailed, and TimeoutError after `timeout` seconds.
        """
        subject = self.create_subject(photos, consent=consent, **options)
        self.wait(subject, on_progress=on_progress, timeout=timeout)
        return self.subject(subject)

    def create_subject(
        self, photos: Photo | Sequence[Photo], *, consent: bool, **options: Unpack[SubjectOptions]
    ) -> schemas.SubjectAnswer:
        """Upload photos of one person and begin to personalise. `consent`: that person has agreed."""
        return self._send(calls.create_subject(photos, consent=consent, options=options))

    def add_photos(
        self,
        subject: SubjectRef,
        photos: Photo | Sequence[Photo],
        *,
        consent: bool,
        **options: Unpack[PhotoOptions],
    ) -> schemas.SubjectAnswer:
        """Upload more photos of a subject's person: it goes on with its weights until there are new ones.

        `wait` for the subject to see how that goes.
        """
        return self._send(calls.add_photos(subject, photos, consent=consent, options=options))

    def subjects(self) -> Iterator[schemas.SubjectAnswer]:
        """All subjects, newest first, read a page at a time."""
        for page in self._pages(calls.subjects):
            yield from page.subjects

    def subject(self, subject: SubjectRef) -> schemas.SubjectAnswer:
        """A subject as it stands."""
        return self._send(calls.subject(subject))

    def delete_subject(self, subject: SubjectRef) -> schemas.DeletionReceipt:
        """Erase a subject and everything made of it. Doing it again gives the same receipt, for a day."""
        return self._send(calls.delete_subject(subject))

    def weights(
        self,
        subject: SubjectRef,
        *,
        format: WeightsFormat = "lidb",  # noqa: A002 - as the route has it
        stage: Stage = "refined",
    ) -> bytes:
        """A subject's weights file: the service's own, or what diffusers (peft), or A1111 and ComfyUI (kohya), open."""
        return self._send(calls.weights(subject, format, stage))

    def generate(self, whose: Whose, prompt: str, **options: Unpack[GenerateOptions]) -> schemas.JobAnswer:
        """Ask for `n` pictures of a subject, or of a blend of several; the answer is a job to `wait` for."""
        return self._send(calls.generate(whose, prompt, options))

    def create_batch(
        self,
        prompts: Sequence[str] = (),
        subjects: Sequence[SubjectRef] = (),
        *,
        items: Sequence[Mapping[str, Any]] = (),
        **defaults: Unpack[GenerateOptions],
    ) -> BatchAnswer:
        """Ask for every prompt with every subject, and for `items`: generations, which may have a `custom_id`.

        `defaults` hold for whatever does not say otherwise.
        """
        asked = {"prompts": prompts, "subject_ids": [id_of(subject) for subject in subjects], "items": items}
        filled = {name: list(value) for name, value in asked.items() if value}
        return self._send(calls.create_batch({**filled, "defaults": given(defaults)}))

    def upload_batch(self, lines: bytes | Path) -> BatchAnswer:
        """Ask for the generations in a JSONL file, one in each line."""
        return self._send(calls.upload_batch(lines))

    def batches(self) -> Iterator[BatchAnswer]:
        """All batches, newest first, read a page at a time."""
        for page in self._pages(calls.batches):
            yield from page.batches

    def batch(self, batch: BatchRef) -> BatchAnswer:
        """A batch as it stands."""
        return self._send(calls.batch(batch))

    def wait_for_batch(
        self,
        batch: BatchRef,
        *,
        on_progress: Callable[[BatchAnswer], Any] | None = None,
        timeout: float | None = None,
    ) -> BatchAnswer:
        """Wait until all items of a batch are over, however they ended; `on_progress` sees it whenever it has changed.

        Raises also TimeoutError after `timeout` seconds: the batch goes on.
        """
        deadline = Deadline(timeout, id_of(batch))
        seen = None
        while True:
            found = self.batch(batch)
            if on_progress and found != seen:
                on_progress(found)
            if found.finished_at is not None:
                return found
            seen = found
            time.sleep(deadline.left(BATCH_INTERVAL))

    def batch_items(self, batch: BatchRef, *, status: ItemStatus | None = None) -> Iterator[BatchItemAnswer]:
        """A batch's items in their order, read a page at a time; only those that stand so."""
        for page in self._pages(partial(calls.batch_items, ref=batch, status=status)):
            yield from page.items

    def batch_results(self, batch: BatchRef) -> list[BatchItemAnswer]:
        """All of a batch's items as they stand, in one request."""
        return self._send(calls.batch_results(batch))

    def cancel_batch(self, batch: BatchRef) -> BatchAnswer:
        """Ask a batch to stop; pictures that are made stay."""
        return self._send(calls.cancel_batch(batch))

    def delete_batch(self, batch: BatchRef) -> BatchDeleted:
        """Erase a batch, its prompts and its pictures."""
        return self._send(calls.delete_batch(batch))

    def jobs(
        self, *, status: JobStatus | None = None, kind: JobKind | None = None, subject: SubjectRef | None = None
    ) -> Iterator[schemas.JobAnswer]:
        """Jobs, newest first, read a page at a time; only those that stand so, do this, or are of this subject."""
        for page in self._pages(partial(calls.jobs, status=status, kind=kind, subject=subject)):
            yield from page.jobs

    def job(self, job: JobRef, *, wait: int = 0) -> schemas.JobAnswer:
        """A job as it stands, or as it stands when it is over, or after `wait` seconds (at most 60)."""
        return self._send(calls.job(job, wait=wait))

    def wait(
        self, job: JobRef, *, on_progress: Listener | None = None, timeout: float | None = None
    ) -> schemas.JobAnswer:
        """Wait until the job has succeeded; `on_progress` sees it at first, and whenever it has changed.

        Raises also JobFailed when the job ends otherwise, and TimeoutError after `timeout` seconds: the job goes on.
        """
        watch = Watch(job, timeout)
        for seen in self._look(watch) if on_progress is None else self._listen(watch):
            if on_progress:
                on_progress(seen)
        return watch.result()

    def events(self, job: JobRef, *, last_event_id: str = "") -> Iterator[Event]:
        """What happens to a job, as it happens, until it is over; what came after `last_event_id` first.

        A connection that breaks is made anew, without a gap.
        """
        return self._follow(Following(job, last_event_id))

    def cancel(self, job: JobRef) -> schemas.JobAnswer:
        """Ask a job to stop."""
        return self._send(calls.cancel(job))

    def image(self, image: ImageRef, *, kind: ImageKind = "png") -> bytes:
        """A picture's bytes."""
        return self._send(calls.image(image, kind))

    def create_webhook(
        self, url: str, *, events: Sequence[WebhookEventName] | None = None, description: str | None = None
    ) -> WebhookCreated:
        """Have what happens posted to a public https address; the answer has the `secret` for `verify_webhook`."""
        return self._send(calls.create_webhook(url, events, description))

    def webhooks(self) -> list[WebhookAnswer]:
        """All webhooks, oldest first."""
        return self._send(calls.webhooks())

    def webhook(self, webhook: WebhookRef) -> WebhookAnswer:
        """A webhook, without its secret."""
        return self._send(calls.webhook(webhook))

    def delete_webhook(self, webhook: WebhookRef) -> None:
        """Have nothing posted any more."""
        return self._send(calls.delete_webhook(webhook))

    def test_webhook(self, webhook: WebhookRef) -> DeliveryAnswer:
        """Have a message posted now, that only says hello."""
        return self._send(calls.test_webhook(webhook))

    def rotate_webhook(self, webhook: WebhookRef, *, overlap_hours: int = 24) -> WebhookCreated:
        """Have messages signed with a new secret, which the answer has; so long the old one counts as well (0 to 168).

        `overlap_hours` 0: others know the old secret.
        """
        return self._send(calls.rotate_webhook(webhook, overlap_hours))

    def enable_webhook(self, webhook: WebhookRef) -> WebhookAnswer:
        """Have what happens from now on posted again, to an address that had said 410 (Gone)."""
        return self._send(calls.enable_webhook(webhook))

    def deliveries(self, webhook: WebhookRef, *, limit: int = 20) -> list[DeliveryAnswer]:
        """The newest messages of a webhook, and how each attempt went."""
        return self._send(calls.deliveries(webhook, limit))

    def models(self) -> list[schemas.ModelAnswer]:
        """The bundles the service runs."""
        return self._send(calls.models())

    def usage(self, *, days: int = 30) -> schemas.UsageAnswer:
        """What was used in the last `days` days, today included."""
        return self._send(calls.usage(days))

    def _send(self, call: Call[T]) -> T:
        """What the call wants to know. Raises Problem."""
        return call.read(self._answer(call))

    def _answer(self, call: Call[Any], *, stream: bool = False) -> httpx.Response:
        """The good answer to a request, which is sent again where that helps; with `stream` only its head is there."""
        attempts = Attempts(call, self._retry)
        while True:
            try:
                request = call.request(self._http, self._timeout)
                answer = self._http.send(request, stream=stream, follow_redirects=call.is_read)
                if stream and not answer.is_success:
                    answer.read()
                pause = attempts.after_answer(answer)
            except httpx.RequestError as error:
                pause = attempts.after_error(error)
            if pause is None:
                return answer
            time.sleep(pause)

    def _pages(self, call: Callable[[str | None], Call[PageT]]) -> Iterator[PageT]:
        page = self._send(call(None))
        yield page
        while page.next_cursor is not None:
            page = self._send(call(page.next_cursor))
            yield page

    def _look(self, watch: Watch, *, patiently: bool = True) -> Iterator[schemas.JobAnswer]:
        """The job whenever a read shows it changed, until it is over."""
        while not watch.is_over:
            if seen := watch.saw(self._send(watch.look(patiently=patiently))):
                yield seen
            if not watch.is_over:
                time.sleep(watch.pause())

    def _listen(self, watch: Watch) -> Iterator[schemas.JobAnswer]:
        """The job whenever an event or, where there are none, a read shows it changed, until it is over."""
        if seen := watch.saw(self._send(watch.look(patiently=False))):
            yield seen
        try:
            for event in () if watch.is_over else self._follow(Following(watch.job, waiting=watch.deadline)):
                if seen := watch.heard(event):
                    yield seen
        except Problem as problem:
            if not must_be_polled(problem):
                raise
        yield from self._look(watch, patiently=False)

    def _follow(self, following: Following) -> Iterator[Event]:
        while True:
            try:
                answer = self._answer(following.connect(), stream=True)
                try:
                    following.check(answer)
                    for chunk in answer.iter_bytes():
                        yield from following.read(chunk)
                        if following.is_over:
                            return
                finally:
                    answer.close()
            except httpx.RequestError:
                pass  # it broke: go on where it did
            pause = following.pause()
            if following.is_over:
                return
            time.sleep(pause)
