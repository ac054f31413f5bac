"""A bundle: the base model with everything that personalizing it needs."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import nn

from core.hyperdreambooth.faces.recogniser import FaceRecogniser
from core.hyperdreambooth.model.config import BundleConfig
from core.hyperdreambooth.model.description import ModelDescription
from core.hyperdreambooth.model.hypernetwork import HyperNetwork, Shapes
from core.hyperdreambooth.model.lidb import Basis
from core.hyperdreambooth.model.prompt_check import spelled_out
from core.hyperdreambooth.model.target import Target
from core.hyperdreambooth.model.targets import find_targets, targets_hash


@dataclass(frozen=True)
class Bundle:
    """A diffusers base model, its configuration and its personalization. ``source`` is where it was loaded from.

    ``hypernetwork`` may be absent, and so may ``recogniser``, which measures likeness and stays on the CPU. SDXL has a
    second text encoder with a tokenizer of its own. ``zero_empty``: an empty prompt's embeddings are zero, as the
    pipeline's configuration says. ``description`` is what its files say of it; None: it was made in memory.
    """

    source: str
    config: BundleConfig
    vae: Any
    text_encoder: nn.Module
    tokenizer: Any
    unet: Any
    scheduler: Any
    hypernetwork: HyperNetwork | None = None
    recogniser: FaceRecogniser | None = None
    text_encoder_2: nn.Module | None = None
    tokenizer_2: Any = None
    zero_empty: bool = False
    description: ModelDescription | None = None

    @property
    def name(self) -> str:
        """The bundle's name, as weight files and the list of models give it."""
        return self.config.name

    @property
    def resolution(self) -> int:
        """The side in pixels of the square pictures the base model makes best."""
        return self.config.resolution

    @property
    def identifier(self) -> str:
        """The rare token that stands for ``[V]`` in prompts."""
        return self.config.identifier

    @property
    def class_noun(self) -> str:
        """What kind of thing the bundle personalizes when a request does not say: "face"."""
        return self.config.class_noun

    @property
    def has_hypernetwork(self) -> bool:
        """Whether the bundle predicts weights: a preview to show, and possibly a start for finetuning."""
        return self.hypernetwork is not None

    @property
    def starts_from_zero(self) -> bool:
        """Whether finetuning of a new subject starts from zero weights rather than from the prediction."""
        return self.config.finetune.starts_from_zero(has_hypernetwork=self.has_hypernetwork)

    def finetuning_steps(self, photos: int = 1) -> int:
        """The finetuning steps for so many photos of a new subject, when the request names none."""
        return self.config.finetune.steps_taken(from_zero=self.starts_from_zero, photos=photos)

    @property
    def device(self) -> torch.device:
        """Where the base model is: its first weight, since diffusers goes through every module for that."""
        device: torch.device = next(self.unet.parameters()).device
        return device

    @property
    def components(self) -> dict[str, nn.Module]:
        """The modules that hold targets, by the first part of a target's name."""
        return {**self.text_encoders, "unet": self.unet}

    @property
    def text_encoders(self) -> dict[str, nn.Module]:
        """The layers of the one text encoder, or of both of SDXL's, by name.

        Versions of transformers keep those of the first as ``text_model`` or not; targets have the same names anyway.
        """
        first = getattr(self.text_encoder, "text_model", self.text_encoder)
        second = {} if self.text_encoder_2 is None else {"text_encoder_2": self.text_encoder_2}
        return {"text_encoder": first, **second}

    @property
    def parts(self) -> dict[str, nn.Module]:
        """Every module of the base model that has weights, as the pipeline names them."""
        second = {} if self.text_encoder_2 is None else {"text_encoder_2": self.text_encoder_2}
        return {"vae": self.vae, "text_encoder": self.text_encoder, **second, "unet": self.unet}

    @property
    def modules(self) -> tuple[nn.Module, ...]:
        """Every module of the base model that has weights."""
        return tuple(self.parts.values())

    @property
    def pixels_multiple(self) -> int:
        """What height and width are multiples of, in pixels: the autoencoder and the UNet halve them so often."""
        return int(self.pixels_per_latent * 2 ** (len(self.unet.config.block_out_channels) - 1))

    @property
    def tokenizers(self) -> tuple[Any, ...]:
        """The tokenizer of each text encoder."""
        return tuple(each for each in (self.tokenizer, self.tokenizer_2) if each is not None)

    @property
    def pixels_per_latent(self) -> int:
        """How many pixels of a side the autoencoder puts into one place of the latents."""
        return int(2 ** (len(self.vae.config.block_out_channels) - 1))

    @cached_property
    def targets(self) -> tuple[Target, ...]:
        """The personalized layers, in file order."""
        return find_targets(self.components, self.config.lidb.preset)

    @property
    def shapes(self) -> Shapes:
        """The inner widths ``(a, b)`` of each target's basis, in file order: what a hypernetwork is made for."""
        lidb = self.config.lidb
        return {target.name: target.capped(lidb.a, lidb.b) for target in self.targets}

    @cached_property
    def targets_hash(self) -> str:
        """The hash of the ordered list of targets."""
        return targets_hash(self.targets)

    @cached_property
    def basis(self) -> Basis:
        """The frozen basis on the bundle's device; finetuning can use it also when sampling asked for it first."""
        with torch.inference_mode(mode=False):
            return Basis(self.targets, self.config.lidb).to(self.device)

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the targets' own weights, rounded to fp16: the same on every device, another for another base."""
        digest = hashlib.sha256()
        for target in self.targets:
            component, _, path = target.name.partition(".")
            weight = self.components[component].get_parameter(f"{path}.weight")
            digest.update(target.name.encode())
            digest.update(weight.detach().to("cpu", torch.float16).contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]

    def configured(self, config: BundleConfig, **changes: Any) -> Bundle:
        """The same model with another configuration (and other fields); cached values that still hold are kept."""
        changed = replace(self, config=config, **changes)
        kept = ("fingerprint", "targets", "targets_hash", "basis") if config.lidb == self.config.lidb else ()
        changed.__dict__.update({name: self.__dict__[name] for name in kept if name in self.__dict__})
        return changed

    def prompt(self, text: str) -> str:
        """``text`` as the text encoder sees it: the identifier in place of ``[V]``."""
        return spelled_out(text, self.identifier)
