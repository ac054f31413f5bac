"""Models: the bundles that the service runs."""

from __future__ import annotations

from pydantic import Field

from hyperdreambooth.schemas.base import Answer


class ModelAnswer(Answer):
    """A bundle, what it can do, and its defaults."""

    id: str = Field(examples=["faces-64"])
    resolution: int | None = Field(default=None, description="Side of its pictures in pixels.", examples=[64])
    class_noun: str = Field(default="face", examples=["face"])
    has_hypernetwork: bool = Field(
        description="Whether the preview comes before finetuning, and few steps suffice.", examples=[True]
    )
    steps: int = Field(description="Denoising steps.", examples=[20])
    guidance_scale: float = Field(examples=[1.75])
    personalize_steps: int = Field(
        description="Finetuning steps for one photo; each further one takes half as many again, twice as many at most.",
        examples=[50],
    )


class ModelList(Answer):
    """The bundles this service runs."""

    models: list[ModelAnswer]
