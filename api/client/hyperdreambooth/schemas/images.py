"""Images: what answers say of a picture."""

from __future__ import annotations

from pydantic import Field
from pydantic.config import JsonDict

from hyperdreambooth.schemas.base import IMAGE_ID, Answer

IMAGE: JsonDict = {"id": IMAGE_ID, "url": f"/v1/images/{IMAGE_ID}", "seed": 7, "width": 64, "height": 64}
"""An example."""


class ImageInfo(Answer):
    """One picture."""

    id: str = Field(examples=[IMAGE_ID])
    url: str = Field(examples=[f"/v1/images/{IMAGE_ID}"])
    seed: int = Field(examples=[7])
    width: int = Field(examples=[64])
    height: int = Field(examples=[64])
