"""The client that does not block: the same methods as `Client`'s, to be awaited or iterated over with `async for`."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Any, Self, TypeVar, Unpack

import anyio
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
from hyperdreambooth.client.sync import DEFAULT_TIMEOUT, DEFAULT_URL
from hyperdreambooth.client.watch import BATCH_INTERVAL, Deadline, Following, Watch, must_be_polled
from hyperdreambooth.schemas import ItemStatus, JobKind, JobStatus
from hyperdreambooth.schemas.batches import BatchAnswer, BatchDeleted, BatchItemAnswer
from hyperdreambooth.schemas.webhooks import DeliveryAnswer, WebhookAnswer, WebhookCreated, WebhookEventName

T = TypeVar("T")
PageT = TypeVar("PageT", bound=Page)
Listener = Callable[[schemas.JobAnswer], Any]


class AsyncClient:
    """One service. Close it, or use it in an `async with` block. All methods raise Problem.

    `on_progress` may be a coroutine function.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        api_key: str | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        retry: Retry = DEFAULT_RETRY,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """See Client."""
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._http = httpx.AsyncClient(base_url=url, headers=headers, transport=transport)
        self._timeout = timeout
        self._retry = retry

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def personalize(
        self,
        photos: Photo | Sequence[Photo],
        *,
        consent: bool,
        on_progress: Listener | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - as Client has it
        **options: Unpack[SubjectOptions],
    ) -> schemas.SubjectAnswer:
        """See Client."""
        subject = await self.create_subject(photos, consent=consent, **options)
        await self.wait(subject, on_progress=on_progress, timeout=timeout)
        return await self.subject(subject)

    async def create_subject(
        self, photos: Photo | Sequence[Photo], *, consent: bool, **options: Unpack[SubjectOptions]
    ) -> schemas.SubjectAnswer:
        """See Client."""
        return await self._send(calls.create_subject(photos, consent=consent, options=options))

    async def add_photos(
        self,
        subject: SubjectRef,
        photos: Photo | Sequence[Photo],
        *,
        consent: bool,
        **options: Unpack[PhotoOptions],
    ) -> schemas.SubjectAnswer:
        """See Client."""
        return await self._send(calls.add_photos(subject, photos, consent=consent, options=options))

    async def subjects(self) -> AsyncIterator[schemas.SubjectAnswer]:
        """See Client."""
        async for page in self._pages(calls.subjects):
            for subject in page.subjects:
                yield subject

    async def subject(self, subject: SubjectRef) -> schemas.SubjectAnswer:
        """See Client."""
        return await self._send(calls.subject(subject))

    async def delete_subject(self, subject: SubjectRef) -> schemas.DeletionReceipt:
        """See Client."""
        return await self._send(calls.delete_subject(subject))

    async def weights(
        self,
        subject: SubjectRef,
        *,
        format: WeightsFormat = "lidb",  # noqa: A002 - as the route has it
        stage: Stage = "refined",
    ) -> bytes:
        """See Client."""
        return await self._send(calls.weights(subject, format, stage))

    async def generate(self, whose: Whose, prompt: str, **options: Unpack[GenerateOptions]) -> schemas.JobAnswer:
        """See Client."""
        return await self._send(calls.generate(whose, prompt, options))

    async def create_batch(
        self,
        prompts: Sequence[str] = (),
        subjects: Sequence[SubjectRef] = (),
        *,
        items: Sequence[Mapping[str, Any]] = (),
        **defaults: Unpack[GenerateOptions],
    ) -> BatchAnswer:
        """See Client."""
        asked = {"prompts": prompts, "subject_ids": [id_of(subject) for subject in subjects], "items": items}
        filled = {name: list(value) for name, value in asked.items() if value}
        return await self._send(calls.create_batch({**filled, "defaults": given(defaults)}))

    async def upload_batch(self, lines: bytes | Path) -> BatchAnswer:
        """See Client."""
        return await self._send(calls.upload_batch(lines))

    async def batches(self) -> AsyncIterator[BatchAnswer]:
        """See Client."""
        async for page in self._pages(calls.batches):
            for batch in page.batches:
                yield batch

    async def batch(self, batch: BatchRef) -> BatchAnswer:
        """See Client."""
        return await self._send(calls.batch(batch))

    async def wait_for_batch(
        self,
        batch: BatchRef,
        *,
        on_progress: Callable[[BatchAnswer], Any] | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - as Client has it
    ) -> BatchAnswer:
        """See Client."""
        deadline = Deadline(timeout, id_of(batch))
        seen = None
        while True:
            found = await self.batch(batch)
            if on_progress and found != seen and inspect.isawaitable(told := on_progress(found)):
                await told
            if found.finished_at is not None:
                return found
            seen = found
            await anyio.sleep(deadline.left(BATCH_INTERVAL))

    async def batch_items(self, batch: BatchRef, *, status: ItemStatus | None = None) -> AsyncIterator[BatchItemAnswer]:
        """See Client."""
        async for page in self._pages(partial(calls.batch_items, ref=batch, status=status)):
            for item in page.items:
                yield item

    async def batch_results(self, batch: BatchRef) -> list[BatchItemAnswer]:
        """See Client."""
        return await self._send(calls.batch_results(batch))

    async def cancel_batch(self, batch: BatchRef) -> BatchAnswer:
        """See Client."""
        return await self._send(calls.cancel_batch(batch))

    async def delete_batch(self, batch: BatchRef) -> BatchDeleted:
        """See Client."""
        return await self._send(calls.delete_batch(batch))

    async def jobs(
        self, *, status: JobStatus | None = None, kind: JobKind | None = None, subject: SubjectRef | None = None
    ) -> AsyncIterator[schemas.JobAnswer]:
        """See Client."""
        async for page in self._pages(partial(calls.jobs, status=status, kind=kind, subject=subject)):
            for job in page.jobs:
                yield job

    async def job(self, job: JobRef, *, wait: int = 0) -> schemas.JobAnswer:
        """See Client."""
        return await self._send(calls.job(job, wait=wait))

    async def wait(
        self,
        job: JobRef,
        *,
        on_progress: Listener | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - as Client has it
    ) -> schemas.JobAnswer:
        """See Client."""
        watch = Watch(job, timeout)
        async for seen in self._look(watch) if on_progress is None else self._listen(watch):
            if on_progress:
                told = on_progress(seen)
                if inspect.isawaitable(told):
                    await told
        return watch.result()

    def events(self, job: JobRef, *, last_event_id: str = "") -> AsyncIterator[Event]:
        """See Client."""
        return self._follow(Following(job, last_event_id))

    async def cancel(self, job: JobRef) -> schemas.JobAnswer:
        """See Client."""
        return await self._send(calls.cancel(job))

    async def image(self, image: ImageRef, *, kind: ImageKind = "png") -> bytes:
        """See Client."""
        return await self._send(calls.image(image, kind))

    async def create_webhook(
        self, url: str, *, events: Sequence[WebhookEventName] | None = None, description: str | None = None
    ) -> WebhookCreated:
        """See Client."""
        return await self._send(calls.create_webhook(url, events, description))

    async def webhooks(self) -> list[WebhookAnswer]:
        """See Client."""
        return await self._send(calls.webhooks())

    async def webhook(self, webhook: WebhookRef) -> WebhookAnswer:
        """See Client."""
        return await self._send(calls.webhook(webhook))

    async def delete_webhook(self, webhook: WebhookRef) -> None:
        """See Client."""
        return await self._send(calls.delete_webhook(webhook))

    async def test_webhook(self, webhook: WebhookRef) -> DeliveryAnswer:
        """See Client."""
        return await self._send(calls.test_webhook(webhook))

    async def rotate_webhook(self, webhook: WebhookRef, *, overlap_hours: int = 24) -> WebhookCreated:
        """See Client."""
        return await self._send(calls.rotate_webhook(webhook, overlap_hours))

    async def enable_webhook(self, webhook: WebhookRef) -> WebhookAnswer:
        """See Client."""
        return await self._send(calls.enable_webhook(webhook))

    async def deliveries(self, webhook: WebhookRef, *, limit: int = 20) -> list[DeliveryAnswer]:
        """See Client."""
        return await self._send(calls.deliveries(webhook, limit))

    async def models(self) -> list[schemas.ModelAnswer]:
        """See Client."""
        return await self._send(calls.models())

    async def usage(self, *, days: int = 30) -> schemas.UsageAnswer:
        """See Client."""
        return await self._send(calls.usage(days))

    async def _send(self, call: Call[T]) -> T:
        """What the call wants to know. Raises Problem."""
        return call.read(await self._answer(call))

    async def _answer(self, call: Call[Any], *, stream: bool = False) -> httpx.Response:
        """The good answer to a request, which is sent again where that helps; with `stream` only its head is there."""
        attempts = Attempts(call, self._retry)
        while True:
            try:
                request = call.request(self._http, self._timeout)
                answer = await self._http.send(request, stream=stream, follow_redirects=call.is_read)
                if stream and not answer.is_success:
                    await answer.aread()
                pause = attempts.after_answer(answer)
            except httpx.RequestError as error:
                pause = attempts.after_error(error)
            if pause is None:
                return answer
            await anyio.sleep(pause)

    async def _pages(self, call: Callable[[str | None], Call[PageT]]) -> AsyncIterator[PageT]:
        page = await self._send(call(None))
        yield page
        while page.next_cursor is not None:
            page = await self._send(call(page.next_cursor))
            yield page

    async def _look(self, watch: Watch, *, patiently: bool = True) -> AsyncIterator[schemas.JobAnswer]:
        """The job whenever a read shows it changed, until it is over."""
        while not watch.is_over:
            if seen := watch.saw(await self._send(watch.look(patiently=patiently))):
                yield seen
            if not watch.is_over:
                await anyio.sleep(watch.pause())

    async def _listen(self, watch: Watch) -> AsyncIterator[schemas.JobAnswer]:
        """The job whenever an event or, where there are none, a read shows it changed, until it is over."""
        if seen := watch.saw(await self._send(watch.look(patiently=False))):
            yield seen
        try:
            if not watch.is_over:
                async with aclosing(self._follow(Following(watch.job, waiting=watch.deadline))) as events:
                    async for event in events:
                        if seen := watch.heard(event):
                            yield seen
        except Problem as problem:
            if not must_be_polled(problem):
                raise
        async for seen in self._look(watch, patiently=False):
            yield seen

    async def _follow(self, following: Following) -> AsyncGenerator[Event, None]:
        while True:
            try:
                answer = await self._answer(following.connect(), stream=True)
                try:
                    following.check(answer)
                    async for chunk in answer.aiter_bytes():
                        for event in following.read(chunk):
                            yield event
                        if following.is_over:
                            return
                finally:
                    await answer.aclose()
            except httpx.RequestError:
                pass  # it broke: go on where it did
            pause = following.pause()
            if following.is_over:
                return
            await anyio.sleep(pause)
