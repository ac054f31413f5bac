# Made by `make generate` from the models in hyperdreambooth/schemas: change that.
"""The keyword options of the client's methods. None is the same as leaving an option out."""

from __future__ import annotations

from typing import Literal, TypedDict


class PhotoOptions(TypedDict, total=False):
    """Options of `add_photos`; see `hyperdreambooth.schemas.PersonalizeOptions` for the limits."""

    keep_photos: bool | None
    """Keep the aligned photos, so that later photos can be learned from with them."""
    face: str | None
    """Which face is meant, where several are in a photo: its number, or `left,top,right,bottom` as fractions."""
    rank: int | None
    """Rank of the weights after relaxing."""
    steps: int | None
    """Finetuning steps, 1 to 500; `personalize_steps` of the model when left out."""
    seed: int | None
    """Of the finetuning's random numbers."""


class SubjectOptions(PhotoOptions, total=False):
    """Options of `create_subject` and `personalize`."""

    name: str | None
    """For yourself; it comes back in answers."""
    class_noun: str | None
    """What `[V]` is; the model's `class_noun` when left out."""


class GenerateOptions(TypedDict, total=False):
    """Options of `generate` and `create_batch`; see `hyperdreambooth.schemas.GenerationOptions` for the limits."""

    n: int | None
    """How many pictures."""
    seed: int | None
    """Picture i is made with seed + i; after 4294967295 comes 0. Random when left out."""
    steps: int | None
    """Denoising steps; the model's default when left out."""
    guidance_scale: float | None
    """How strictly the prompt is followed; the model's default when left out."""
    strength: float | None
    """How much the subject's weights count: 1 (the default) is most like the photo, 0 the base model."""
    width: int | None
    """In pixels; the model's own size when left out."""
    height: int | None
    """In pixels; the model's own size when left out."""
    negative_prompt: str | None
    """What should not be in the pictures."""
    stage: Literal["preview", "refined"] | None
    """Which weights: `refined`, or `preview`, the latest ones from before finetuning has ended."""
    metadata: list[Literal["prompt", "seed", "subject"]] | None
    """What the files tell whoever gets them, besides that they were made with AI."""
