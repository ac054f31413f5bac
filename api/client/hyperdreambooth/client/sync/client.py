# Made by `make generate` from aio/client.py: change that.
"""The client: the methods for each resource, and what goes over several of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Unpack

from hyperdreambooth.client.options import SubjectOptions
from hyperdreambooth.client.refs import Photo
from hyperdreambooth.client.request import answer_as, get
from hyperdreambooth.client.sync.batches import Batches
from hyperdreambooth.client.sync.jobs import Jobs
from hyperdreambooth.client.sync.subjects import Subjects
from hyperdreambooth.client.sync.webhooks import Webhooks
from hyperdreambooth.schemas import JobAnswer, ModelAnswer, ModelList, SubjectAnswer, UsageAnswer


class Client(Subjects, Jobs, Batches, Webhooks):
    """One service. Close it, or use it in an `with` block. All methods raise Problem."""

    def personalize(
        self,
        photos: Photo | Sequence[Photo],
        *,
        consent: bool,
        on_progress: Callable[[JobAnswer], Any] | None = None,
        timeout: float | None = None,
        **options: Unpack[SubjectOptions],
    ) -> SubjectAnswer:
        """Upload photos of one person, and wait until pictures can be made of that person: `create_subject` and `wait`.

        `consent`: that person has agreed. Raises also JobFailed, and TimeoutError after `timeout` seconds.
        """
        subject = self.create_subject(photos, consent=consent, **options)
        self.wait(subject, on_progress=on_progress, timeout=timeout)
        return self.subject(subject)

    def models(self) -> list[ModelAnswer]:
        """The bundles that the service runs."""
        return (self._send(get("models", read=answer_as(ModelList)))).models

    def usage(self, *, days: int = 30) -> UsageAnswer:
        """What was used in the last `days` days, today included."""
        return self._send(get("usage", read=answer_as(UsageAnswer), params={"days": days}))
