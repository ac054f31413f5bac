"""Images: what answers say of a picture."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field
from pydantic.config import JsonDict

from hyperdreambooth.schemas.base import EXAMPLE_TIME, IMAGE_ID, JOB_ID, SUBJECT_ID, Answer, Livemode

IMAGE: JsonDict = {
    "id": IMAGE_ID,
    "url": f"/v1/images/{IMAGE_ID}",
    "seed": 7,
    "width": 64,
    "height": 64,
    "likeness": 0.61,
}
"""An example."""


class ImageInfo(Answer):
    """One picture."""

    id: str = Field(examples=[IMAGE_ID])
    url: str = Field(examples=[f"/v1/images/{IMAGE_ID}"])
    seed: int = Field(examples=[7])
    width: int = Field(examples=[64])
    height: int = Field(examples=[64])
    likeness: float | None = Field(
        default=None,
        description="How alike it is to the photos of its subject: a cosine, where it was measured.",
        examples=[0.61],
    )


class PictureAnswer(ImageInfo):
    """A picture, whom it shows, and what it was made with; null where an earlier version did not note it."""

    thumbnail: str = Field(description="The same, at most 256 pixels.", examples=[f"/v1/images/{IMAGE_ID}?size=256"])
    livemode: Livemode = True
    job_id: str = Field(examples=[JOB_ID])
    batch_id: str | None = Field(description="The batch that its job is an item of.")
    subject_ids: list[str] = Field(description="Whom it shows; of a blend, all of them.", examples=[[SUBJECT_ID]])
    created_at: datetime = Field(description="When it was asked for.", examples=[EXAMPLE_TIME])
    prompt: str | None = Field(examples=["a pencil sketch of a [V] face"])
    negative_prompt: str | None = Field(examples=[""])
    steps: int | None = Field(description="As in the request: null is the model's default.")
    guidance_scale: float | None
    strength: float | None


class PicturePage(Answer):
    """Some pictures, newest first. `next_cursor` asks for those after them; there are no more without it."""

    images: list[PictureAnswer]
    next_cursor: str | None = None
