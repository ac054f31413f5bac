"""Models: the bundles that the service runs."""

from __future__ import annotations

from pydantic import Field

from hyperdreambooth.schemas.base import Answer


class ModelLimits(Answer):
    """What one generation may ask for."""

    side_multiple: int = Field(description="Of width and height, in pixels.", examples=[16])
    side_min: int = Field(examples=[32])
    side_max: int = Field(examples=[1024])
    prompt_tokens: int | None = Field(
        description="Tokens of a prompt that the model reads. Null: no worker has loaded it yet.",
        examples=[22],
    )
    prompt_characters: int = Field(examples=[1000])
    images: int = Field(examples=[16])
    steps: int = Field(examples=[100])
    guidance_scale_min: float = Field(examples=[1.0])
    guidance_scale_max: float = Field(examples=[30.0])
    seed: int = Field(description="The largest; the smallest is 0.", examples=[4294967295])
    blend: int = Field(description="Subjects in a blend.", examples=[8])


class StyleAnswer(Answer):
    """A style that the model keeps, the prompt for it, and a picture that the model made with it."""

    name: str = Field(examples=["pencil sketch"])
    prompt: str = Field(examples=["a pencil sketch of a [V] face"])
    sample: str | None = Field(
        description="Where the picture is, of a face that does not exist; null where the model has none.",
        examples=["/v1/models/faces-128/samples/pencil-sketch"],
    )


class AttributeAnswer(Answer):
    """A word that changes a picture when it is added to a prompt, as measured, and a picture that the model made so."""

    name: str = Field(examples=["smiling"])
    sample: str | None = Field(
        description="Where the picture is, of a face that does not exist; null where the model has none.",
        examples=["/v1/models/faces-128/samples/smiling"],
    )


class ModelTimes(Answer):
    """What the newest jobs of this tenant took, the medians; null where there were none."""

    personalize: float | None = Field(description="Seconds to personalize.", examples=[16.2])
    picture: float | None = Field(description="Seconds of a generation for each of its pictures.", examples=[0.6])


class ModelAnswer(Answer):
    """A bundle, what it can do, and its defaults."""

    id: str = Field(examples=["faces-128"])
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
    limits: ModelLimits

    styles: list[StyleAnswer] = Field(description="The styles that the model keeps.")
    attributes: list[AttributeAnswer] = Field(
        description="Words that change a picture when they are added to a prompt, as measured; empty where none does."
    )
    seconds: ModelTimes = Field(description="Times on these machines.")


class ModelList(Answer):
    """The bundles this service runs."""

    models: list[ModelAnswer]
