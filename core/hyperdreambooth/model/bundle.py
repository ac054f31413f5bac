"""The base model: a diffusers pipeline folder (or hub id) with what personalising it needs, and the ONE denoising loss.

Everything that trains here, from the base model itself to one person's weights, minimises ``denoising_loss``.
Pictures are uint8 ``n h w 3`` outside and float in [-1, 1], ``n 3 h w``, inside; latents are scaled by the
autoencoder's ``scaling_factor``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline
from jaxtyping import Float, Int, UInt8
from safetensors import SafetensorError
from torch import Tensor, nn

from core.errors import BundleError
from core.hyperdreambooth.faces.recogniser import FaceRecogniser, load_recogniser
from core.hyperdreambooth.model.adapters import adapted
from core.hyperdreambooth.model.config import BundleConfig, Relaxation
from core.hyperdreambooth.model.hypernetwork import HyperNetwork, Shapes, from_description
from core.hyperdreambooth.model.lidb import Basis, Person
from core.hyperdreambooth.model.module_file import read_description, read_weights
from core.hyperdreambooth.model.targets import Target, find_targets, targets_hash
from core.hyperdreambooth.timesteps import EVERYWHERE, TimestepSampler

NOBODY: Person = {}
"""The person whose weights change nothing."""


@dataclass(frozen=True)
class Bundle:
    """A base model and what personalises it. ``source`` is where it was loaded from.

    ``hypernetwork`` and ``recogniser``, which judges likeness and stays on the CPU, may be absent. SDXL has a second
    text encoder with a tokenizer of its own. ``zero_empty``: an empty prompt's embeddings are zero, as the pipeline
    says.
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

    @property
    def name(self) -> str:
        """The bundle's name, as weight files and the models list give it."""
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
        """What kind of thing the bundle personalises when a request does not say: "face"."""
        return self.config.class_noun

    @property
    def has_hypernetwork(self) -> bool:
        """Whether there is a prediction to show, and maybe to start from."""
        return self.hypernetwork is not None

    @property
    def starts_from_zero(self) -> bool:
        """Whether finetuning of somebody new starts from zero rather than from the prediction."""
        return self.config.finetune.starts_from_zero(has_hypernetwork=self.has_hypernetwork)

    def finetuning_steps(self, photos: int = 1) -> int:
        """The finetuning steps of a personalisation from so many photos that names none."""
        return self.config.finetune.steps_taken(from_zero=self.starts_from_zero, photos=photos)

    @property
    def device(self) -> torch.device:
        """Where the base model lives."""
        device: torch.device = self.unet.device
        return device

    @property
    def components(self) -> dict[str, nn.Module]:
        """The modules that hold targets, by the first part of a target's name."""
        return {**self.text_encoders, "unet": self.unet}

    @property
    def text_encoders(self) -> dict[str, nn.Module]:
        """The one text encoder, or both of SDXL's, by name."""
        second = {} if self.text_encoder_2 is None else {"text_encoder_2": self.text_encoder_2}
        return {"text_encoder": self.text_encoder, **second}

    @property
    def modules(self) -> tuple[nn.Module, ...]:
        """Everything of the base model that has weights."""
        return (self.vae, *self.components.values())

    @cached_property
    def targets(self) -> tuple[Target, ...]:
        """The personalised layers, in file order."""
        return find_targets(self.components, self.config.lidb.preset)

    @property
    def shapes(self) -> Shapes:
        """The inner widths of each target's basis, in file order: what a hypernetwork is made for."""
        lidb = self.config.lidb
        return {target.name: target.capped(lidb.a, lidb.b) for target in self.targets}

    @cached_property
    def targets_hash(self) -> str:
        """The hash of the ordered list of targets."""
        return targets_hash(self.targets)

    @cached_property
    def basis(self) -> Basis:
        """The frozen basis on the bundle's device; finetuning can use it also when sampling asked for it first."""
        lidb = self.config.lidb
        with torch.inference_mode(mode=False):
            return Basis(self.targets, seed=lidb.seed, a=lidb.a, b=lidb.b, kind=lidb.basis).to(self.device)

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
        """The same model with other numbers (and other parts); what has been worked out and stays is kept."""
        changed = replace(self, config=config, **changes)
        kept = ("fingerprint", "targets", "targets_hash", "basis") if config.lidb == self.config.lidb else ()
        changed.__dict__.update({name: self.__dict__[name] for name in kept if name in self.__dict__})
        return changed

    def prompt(self, text: str) -> str:
        """``text`` as the text encoder sees it: the identifier in place of ``[V]``."""
        return text.replace("[V]", self.identifier).replace("[v]", self.identifier)


@dataclass(frozen=True)
class Embeddings:
    """Prompts as the UNet takes them; ``pooled`` is one vector a prompt, of SDXL's second text encoder."""

    tokens: Float[Tensor, "n tokens width"]
    pooled: Float[Tensor, "n pooled"] | None = None


def load_bundle(source: str | Path, *, device: str = "auto") -> Bundle:
    """Open a folder or hub id of a Stable-Diffusion-type pipeline, with or without ``bundle.json`` and a hypernetwork.

    ``device`` "auto" takes CUDA when it is there. Everything is frozen and in evaluation mode; no pickle is opened.

    Raises:
        BundleError: the source is not such a pipeline, or its parts do not fit together.
    """
    where = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    folder = Path(source)
    if not folder.is_dir() and (str(source).startswith((".", "/")) or str(source).count("/") != 1):
        raise BundleError(f"{source} is neither a folder nor a hub id such as owner/name")
    try:
        pipeline = DiffusionPipeline.from_pretrained(
            str(source), use_safetensors=True, safety_checker=None, dtype=torch.float32
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BundleError(f"{source} cannot be opened as a diffusers pipeline: {error}") from error
    config = _read_config(folder, str(source), pipeline)
    bundle = from_pipeline(pipeline, config, source=str(source))
    for module in bundle.modules:
        module.to(where).eval().requires_grad_(False)
    bundle = replace(bundle, recogniser=load_recogniser(folder))
    network = _read_hypernetwork(folder / "hypernetwork", bundle)
    return bundle if network is None else replace(bundle, hypernetwork=network.to(where).eval().requires_grad_(False))


def from_pipeline(pipeline: Any, config: BundleConfig, *, source: str = "memory") -> Bundle:
    """A bundle around the components of a pipeline that is already in memory.

    Raises:
        BundleError: the pipeline lacks a component.
    """
    parts = ("vae", "text_encoder", "tokenizer", "unet", "scheduler")
    missing = [part for part in parts if getattr(pipeline, part, None) is None]
    if missing:
        raise BundleError(f"not a Stable-Diffusion-type pipeline: it has no {', '.join(missing)}")
    second: dict[str, Any] = {part: getattr(pipeline, part, None) for part in ("text_encoder_2", "tokenizer_2")}
    zero_empty = bool(pipeline.config.get("force_zeros_for_empty_prompt"))
    return Bundle(source, config, **{part: getattr(pipeline, part) for part in parts}, **second, zero_empty=zero_empty)


def encode_pictures(bundle: Bundle, pictures: UInt8[Tensor, "n h w 3"]) -> Float[Tensor, "n c h8 w8"]:
    """Pictures to scaled latents, without sampling noise."""
    pixels = to_pixels(pictures).to(bundle.device, bundle.vae.dtype)
    latents: Tensor = bundle.vae.encode(pixels).latent_dist.mean * bundle.vae.config.scaling_factor
    return latents


def decode_latents(bundle: Bundle, latents: Float[Tensor, "n c h8 w8"]) -> UInt8[Tensor, "n h w 3"]:
    """Scaled latents to pictures."""
    return to_pictures(bundle.vae.decode(latents / bundle.vae.config.scaling_factor).sample)


def to_pixels(pictures: UInt8[Tensor, "n h w 3"]) -> Float[Tensor, "n 3 h w"]:
    """0..255 to [-1, 1], channels first."""
    return pictures.permute(0, 3, 1, 2).float() / 127.5 - 1


def to_pictures(pixels: Float[Tensor, "n 3 h w"]) -> UInt8[Tensor, "n h w 3"]:
    """[-1, 1] to 0..255, channels last."""
    return ((pixels.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1)


def tokenize(bundle: Bundle, prompts: Sequence[str]) -> Int[Tensor, "n tokens"]:
    """Prompts to token ids of the encoder's full length; what does not fit is cut off. Two encoders' ids follow each
    other.
    """
    texts = [bundle.prompt(prompt) for prompt in prompts]
    ids = [
        tokenizer(
            texts,
            padding="max_length",
            max_length=tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        ).input_ids
        for tokenizer in (bundle.tokenizer, bundle.tokenizer_2)
        if tokenizer is not None
    ]
    return torch.cat(ids, dim=1).to(bundle.device)


def encode_tokens(bundle: Bundle, tokens: Int[Tensor, "n tokens"], person: Person = NOBODY) -> Embeddings:
    """Token ids to embeddings, through the text encoders as ``person`` changes them (merged factors).

    SDXL takes the last layer but one of both, side by side, and the second one's summary of the prompt.
    """
    second = bundle.text_encoder_2
    with adapted(bundle.text_encoders, person):
        if second is None:
            return Embeddings(bundle.text_encoder(tokens)[0])
        own, others = tokens.split([bundle.tokenizer.model_max_length, bundle.tokenizer_2.model_max_length], dim=1)
        first, last = bundle.text_encoder(own, output_hidden_states=True), second(others, output_hidden_states=True)
    hidden, pooled = torch.cat([first.hidden_states[-2], last.hidden_states[-2]], dim=-1), last[0]
    if bundle.zero_empty:
        said = (tokens != tokenize(bundle, [""])).any(dim=1, keepdim=True)
        hidden, pooled = hidden * said[..., None], pooled * said
    return Embeddings(hidden, pooled)


def predict(
    bundle: Bundle,
    noisy: Float[Tensor, "n c h w"],
    timesteps: Int[Tensor, " n"],
    embeddings: Embeddings,
    person: Person = NOBODY,
) -> Float[Tensor, "n c h w"]:
    """The UNet's output (noise or velocity, as the scheduler has it) as ``person`` changes it.

    SDXL is told that the picture is whole and of its own size.
    """
    added = None
    if embeddings.pooled is not None:
        factor = 2 ** (len(bundle.vae.config.block_out_channels) - 1)
        height, width = (side * factor for side in noisy.shape[2:])
        ids = torch.tensor([height, width, 0, 0, height, width], device=noisy.device, dtype=noisy.dtype)
        added = {"text_embeds": embeddings.pooled, "time_ids": ids.expand(len(noisy), -1)}
    with adapted({"unet": bundle.unet}, person):
        output: Tensor = bundle.unet(
            noisy, timesteps, encoder_hidden_states=embeddings.tokens, added_cond_kwargs=added
        ).sample
    return output


def denoising_loss(
    bundle: Bundle,
    latents: Float[Tensor, "n c h w"],
    tokens: Int[Tensor, "n tokens"],
    person: Person = NOBODY,
    *,
    generator: torch.Generator,
    sampler: TimestepSampler = EVERYWHERE,
    people: int = 1,
) -> Float[Tensor, " n"]:
    """The diffusion loss of each row, at timesteps that ``sampler`` spreads over the batch.

    Rows of several ``people`` follow each other: each of them gets the timesteps and the noise that it would get alone.
    ``generator`` lives on the CPU, so that every device draws the same noise.
    """
    rows = len(latents) // people
    places = sampler.draw(rows, generator)
    last = bundle.scheduler.config.num_train_timesteps - 1
    timesteps = (places * (last + 1)).long().clamp(max=last).to(latents.device)  # (k + rand) / rows can round up to 1
    noise = torch.randn(rows, *latents.shape[1:], generator=generator).to(latents)
    return loss_at(bundle, timesteps.repeat(people), noise.repeat(people, 1, 1, 1), latents, tokens, person)


def loss_at(
    bundle: Bundle,
    timesteps: Int[Tensor, " n"],
    noise: Float[Tensor, "n c h w"],
    latents: Float[Tensor, "n c h w"],
    tokens: Int[Tensor, "n tokens"],
    person: Person = NOBODY,
) -> Float[Tensor, " n"]:
    """The diffusion loss of each row, at its timestep and with its noise."""
    noisy = bundle.scheduler.add_noise(latents, noise, timesteps)
    embeddings = encode_tokens(bundle, tokens, person)
    predicted = predict(bundle, noisy, timesteps, embeddings, person)
    if bundle.scheduler.config.prediction_type == "v_prediction":
        noise = bundle.scheduler.get_velocity(latents, noise, timesteps)
    return (predicted.float() - noise.float()).pow(2).mean(dim=(1, 2, 3))


def merged(bundle: Bundle, person: Person, *, kind: Relaxation = "lidb") -> Person:
    """Factors as adapters take them: in-basis ones are multiplied with the basis, full LoRA ones are ready."""
    return bundle.basis.merge(person) if kind == "lidb" else person


def _read_config(folder: Path, source: str, pipeline: Any) -> BundleConfig:
    file = folder / "bundle.json"
    if file.is_file():
        return BundleConfig.from_json(file.read_text())
    scale = 2 ** (len(pipeline.vae.config.block_out_channels) - 1)
    return BundleConfig(name=source.rstrip("/").split("/")[-1], resolution=pipeline.unet.config.sample_size * scale)


def _read_hypernetwork(folder: Path, bundle: Bundle) -> HyperNetwork | None:
    if not folder.is_dir():
        return None
    try:
        network = from_description(read_description(folder))
        weights = read_weights(folder)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise BundleError(f"the hypernetwork in {folder} cannot be read: {error}") from error
    if list(network.shapes.items()) != list(bundle.shapes.items()):
        raise BundleError(f"the hypernetwork in {folder} was made for other targets than the base model's")
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise BundleError(f"the hypernetwork in {folder} does not fit its own description: {error}") from error
    return network
