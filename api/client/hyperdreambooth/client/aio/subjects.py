"""Subjects: photos become weights."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Unpack

from hyperdreambooth.client.aio.connection import AsyncConnection
from hyperdreambooth.client.forms import check_form, photo_form
from hyperdreambooth.client.options import PhotoOptions, SubjectOptions
from hyperdreambooth.client.refs import Photo, SubjectRef
from hyperdreambooth.client.request import answer_as, change, content, create, get, id_of
from hyperdreambooth.schemas import (
    DeletionReceipt,
    PhotosChecked,
    SubjectAnswer,
    SubjectPage,
    WeightsFormat,
    WeightsStage,
)


class AsyncSubjects(AsyncConnection):
    """The methods for subjects."""

    async def create_subject(
        self, photos: Photo | Sequence[Photo], *, consent: bool, **options: Unpack[SubjectOptions]
    ) -> SubjectAnswer:
        """Upload photos of one person and start to personalize. `consent`: that person has agreed."""
        form = photo_form(photos, consent=consent, options=options)
        return await self._send(create("subjects", read=answer_as(SubjectAnswer), **form))

    async def add_photos(
        self, subject: SubjectRef, photos: Photo | Sequence[Photo], *, consent: bool, **options: Unpack[PhotoOptions]
    ) -> SubjectAnswer:
        """Upload more photos of a subject's person: it keeps its weights until there are new ones.

        `wait` for the subject to follow that.
        """
        form = photo_form(photos, consent=consent, options=options)
        return await self._send(create("subjects", id_of(subject), "photos", read=answer_as(SubjectAnswer), **form))

    async def check_photos(self, photos: Photo | Sequence[Photo], *, face: str | None = None) -> PhotosChecked:
        """What would be made of photos of one person; nothing of them is stored. `face` as in `create_subject`."""
        return await self._send(
            change(
                "POST", "photos", "check", read=answer_as(PhotosChecked), repeatable=True, **check_form(photos, face)
            )
        )

    async def subjects(self) -> AsyncIterator[SubjectAnswer]:
        """All subjects, newest first, read a page at a time."""
        async for page in self._pages("subjects", read=answer_as(SubjectPage)):
            for subject in page.subjects:
                yield subject

    async def subject(self, subject: SubjectRef) -> SubjectAnswer:
        """The subject, and the progress of personalizing."""
        return await self._send(get("subjects", id_of(subject), read=answer_as(SubjectAnswer)))

    async def delete_subject(self, subject: SubjectRef) -> DeletionReceipt:
        """Erase a subject and everything made of it. Deleting it again returns the same receipt, for a day."""
        read = answer_as(DeletionReceipt)
        return await self._send(change("DELETE", "subjects", id_of(subject), read=read, repeatable=True))

    async def weights(
        self,
        subject: SubjectRef,
        *,
        format: WeightsFormat = "lidb",  # noqa: A002 - the parameter's name in the API
        stage: WeightsStage = "refined",
    ) -> bytes:
        """A subject's weights file: the service's own, one for diffusers (peft), or for A1111 and ComfyUI (kohya)."""
        params = {"format": format, "stage": stage}
        return await self._send(get("subjects", id_of(subject), "weights", read=content, params=params))
