"""The autoencoder. Whatever it loses, no personalizing brings back, so it is trained first and measured.

The errors of pixels, of edges and of the colours of larger places count, more in the middle of the frame where the face
is. Latents get noise, so that the decoder forgives the diffusion model's errors, and each of their channels is held at
mean 0 and spread 1. Half of them are mirrored before they are decoded, and a share of the steps decodes them at half
their size: latents that stay latents then are smoother, and easier to learn (EQ-VAE, arXiv 2502.09509). Some pictures
are recoloured, because faces alone teach few colours. The decoder may then be trained on alone: what it makes of given
latents can become better without changing anything that learnt from them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from core.hyperdreambooth.model.bundle import Bundle
from core.hyperdreambooth.model.latents import centre_weights, to_pixels
from core.hyperdreambooth.styles.styles import STYLES
from core.lab.training.data import Faces
from core.lab.training.loop import Losses
from core.lab.training.precision import autocast, quickest
from core.lab.training.recipe import Autoencoder, Decoder
from core.lab.training.recolour import recolour
from core.lab.training.teacher import TEACHER_LOSSES, FaceTeacher

Earlier = Callable[[Tensor], Tensor]
"""Pictures to the latents that an earlier autoencoder has of them."""

COARSE = 8
"""Pixels of the side of the squares whose mean colours are compared."""


def autoencoder_losses(
    bundle: Bundle,
    faces: Faces,
    config: Autoencoder,
    names: tuple[str, ...],
    generator: torch.Generator,
    teacher: FaceTeacher | None = None,
    earlier: Earlier | None = None,
) -> Losses:
    """Reconstruction of a batch of photos or of squares cut from them, of which some are stylised or recoloured.

    Where pictures are whole, a ``teacher`` says what of the face is lost, and latents can be held near ``earlier`` ones
    (of all but recoloured pictures, whose colours those may not know).
    """
    batch = config.optimization.batch // config.slices
    pixels = _draw(faces, batch, config.styled, names, generator, recoloured=config.recoloured)
    weights = centre_weights(pixels.shape[-2], pixels.shape[-1], config.centre).expand(len(pixels), 1, -1, -1)
    pixels, weights = (each.to(bundle.device) for each in _cut(pixels, weights, config.crop, generator))
    smaller = bool(torch.rand((), generator=generator) < config.smaller)
    with autocast(bundle.device, quickest(bundle.device)):
        mean = bundle.vae.encode(pixels).latent_dist.mean
        latents, target, weights = _transformed((mean, pixels, weights), smaller=smaller)
        spread = config.noise * torch.rand(len(mean), 1, 1, 1, generator=generator)
        noise = spread * torch.randn(latents.shape, generator=generator)
        decoded = bundle.vae.decode(latents + noise.to(latents)).sample.float()
    losses = _reconstruction(decoded - target, weights)
    losses["spread"] = _spread(mean.float())
    natural = slice(batch - round(batch * config.recoloured))
    losses["anchor"] = _anchor(mean[natural], pixels[natural], earlier) if not config.crop else torch.zeros(())
    whole = losses["reconstruction"] + config.edges * losses["edges"] + losses["colours"]
    whole = whole + config.penalty * losses["spread"] + config.anchor * losses["anchor"]
    if teacher is not None and not config.crop:
        taught = teacher.losses(decoded, target) if not smaller else dict.fromkeys(TEACHER_LOSSES, torch.zeros(()))
        whole = whole + config.taught * (taught["features"] + taught["identity"])
        losses |= taught
    return {"loss": whole, **losses}


def decoder_losses(
    bundle: Bundle,
    faces: Faces,
    config: Decoder,
    first: Autoencoder,
    names: tuple[str, ...],
    generator: torch.Generator,
    teacher: FaceTeacher | None = None,
) -> Losses:
    """Reconstruction of whole pictures drawn as in the ``first`` training; latents as they are."""
    batch = config.optimization.batch // config.slices
    pixels = _draw(faces, batch, first.styled, names, generator, recoloured=first.recoloured).to(bundle.device)
    with autocast(bundle.device, quickest(bundle.device)):
        with torch.no_grad():
            mean = bundle.vae.encode(pixels).latent_dist.mean
        noise = config.noise * torch.randn(mean.shape, generator=generator)
        decoded = bundle.vae.decode(mean + noise.to(mean)).sample.float()
    losses = _reconstruction(
        decoded - pixels, centre_weights(pixels.shape[-2], pixels.shape[-1], first.centre).to(pixels)
    )
    whole = losses["reconstruction"] + config.edges * losses["edges"] + losses["colours"]
    if teacher is not None:
        losses |= teacher.losses(decoded, pixels)
        whole = whole + config.taught * (losses["features"] + losses["identity"])
    return {"loss": whole, **losses}


def set_scaling(bundle: Bundle, faces: Faces, *, pictures: int = 512) -> None:
    """Measure the latents' spread and write its inverse into the autoencoder's ``scaling_factor``."""
    chosen = np.linspace(0, len(faces) - 1, pictures).astype(int)
    with torch.inference_mode():
        latents = bundle.vae.encode(
            to_pixels(torch.from_numpy(faces.pictures[chosen])).to(bundle.device)
        ).latent_dist.mean
    bundle.vae.register_to_config(scaling_factor=1.0 / float(latents.std()))


def _cut(
    pixels: Float[Tensor, "n 3 h w"], weights: Float[Tensor, "n 1 h w"], side: int, generator: torch.Generator
) -> tuple[Float[Tensor, "n 3 s s"], Float[Tensor, "n 1 s s"]]:
    """A square of ``side`` pixels out of each picture, at steps of 8 pixels; 0 leaves them whole.

    A step shows four times as many pictures when it shows a quarter of each.
    """
    if not side or side >= pixels.shape[-1]:
        return pixels, weights
    places = 8 * torch.randint((pixels.shape[-1] - side) // 8 + 1, (len(pixels), 2), generator=generator)
    cuts = [(slice(y, y + side), slice(x, x + side)) for y, x in places.tolist()]
    cut = [torch.stack([each[n][:, y, x] for n, (y, x) in enumerate(cuts)]) for each in (pixels, weights)]
    return cut[0], cut[1]


def _transformed(tensors: tuple[Tensor, Tensor, Tensor], *, smaller: bool) -> list[Tensor]:
    """Latents, pixels and weights, all with the same rows mirrored, two of four, and maybe at half their size."""
    flip = (torch.arange(len(tensors[0])) % 4 < 2).view(-1, 1, 1, 1).to(tensors[0].device)
    flipped = [torch.where(flip, each.flip(3), each) for each in tensors]
    return [functional.avg_pool2d(each, 2) for each in flipped] if smaller else flipped


def _anchor(latents: Float[Tensor, "n c h w"], pixels: Tensor, earlier: Earlier | None) -> Float[Tensor, ""]:
    """How far latents are from the earlier ones of the same pictures."""
    if earlier is None:
        return latents.new_zeros(())
    with torch.no_grad():
        wanted = earlier(pixels)
    return (latents.float() - wanted.float()).square().mean()


def _spread(latents: Float[Tensor, "n c h w"]) -> Float[Tensor, ""]:
    """How far the channels are from mean 0 and spread 1."""
    deviation, mean = latents.std(dim=(0, 2, 3)), latents.mean(dim=(0, 2, 3))
    return deviation.clamp(min=1e-3).log().square().mean() + mean.square().mean()


def _reconstruction(error: Float[Tensor, "n 3 h w"], weights: Float[Tensor, "*n h w"]) -> dict[str, Tensor]:
    """How far off pixels are, the differences of neighbours, and the mean colours of larger squares."""
    across, down = error.diff(dim=3).abs() * weights[..., 1:], error.diff(dim=2).abs() * weights[..., 1:, :]
    return {
        "reconstruction": (error.abs() * weights).mean(),
        "edges": across.mean() + down.mean(),
        "colours": functional.avg_pool2d(error, COARSE).abs().mean(),
    }


def _draw(
    faces: Faces,
    batch: int,
    share: float,
    names: tuple[str, ...],
    generator: torch.Generator,
    recoloured: float = 0.0,
) -> Float[Tensor, "n 3 h w"]:
    """Pictures, every second one mirrored: the first ones stylised, the last ones recoloured."""
    chosen = torch.randint(len(faces), (batch,), generator=generator).numpy()
    pictures = faces.pictures[chosen]
    pictures[::2] = pictures[::2, :, ::-1].copy()
    groups = torch.randint(len(names), (3,), generator=generator).tolist()
    styled = np.array_split(np.arange(round(batch * share)), len(groups))
    for style, part in zip(groups, styled, strict=True):
        if len(part):
            pictures[part] = STYLES[names[style]].apply(pictures[part])
    if last := round(batch * recoloured):
        pictures[-last:] = recolour(pictures[-last:], generator)
    return to_pixels(torch.from_numpy(pictures))
