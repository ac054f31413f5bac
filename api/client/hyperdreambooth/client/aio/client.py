"""The client: the methods for each resource, and what goes over several of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Unpack

from hyperdreambooth.client.aio.batches import AsyncBatches
from hyperdreambooth.client.aio.jobs import AsyncJobs
from hyperdreambooth.client.aio.subjects import AsyncSubjects
from hyperdreambooth.client.aio.webhooks import AsyncWebhooks
from hyperdreambooth.client.options import SubjectOptions
from hyperdreambooth.client.refs import Photo
from hyperdreambooth.client.request import answer_as, get
from hyperdreambooth.schemas import JobAnswer, ModelAnswer, ModelList, SubjectAnswer, UsageAnswer


class AsyncClient(AsyncSubjects, AsyncJobs, AsyncBatches, AsyncWebhooks):
    """One service. Close it, or use it in an `async with` block. All methods raise Problem."""

    async def personalize(
        self,
        photos: Photo | Sequence[Photo],
        *,
        consent: bool,
        on_progress: Callable[[JobAnswer], Any] | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - the blocking client has it
        **options: Unpack[SubjectOptions],
    ) -> SubjectAnswer:
        """Upload photos of one person, and wait until pictures can be made of that person: `create_subject` and `wait`.

        `consent`: that person has agreed. Raises also JobFailed, and TimeoutError after `timeout` seconds.
        """
        subject = await self.create_subject(photos, consent=consent, **options)
        await self.wait(subject, on_progress=on_progress, timeout=timeout)
        return await self.subject(subject)

    async def models(self) -> list[ModelAnswer]:
        """The bundles that the service runs."""
        return (await self._send(get("models", read=answer_as(ModelList)))).models

    async def usage(self, *, days: int = 30) -> UsageAnswer:
        """What was used in the last `days` days, today included."""
        return await self._send(get("usage", read=answer_as(UsageAnswer), params={"days": days}))
