"""Whether the parts of a pipeline fit and make pictures from texts: asked when it is opened, not in its first job."""

from __future__ import annotations

from typing import Any

import torch

from core.errors import BundleError
from core.hyperdreambooth.model.bundle import Bundle
from core.hyperdreambooth.model.denoising import predict
from core.hyperdreambooth.model.prompts import encode_tokens, tokenize

_PREDICTIONS = ("epsilon", "v_prediction")
_MORE_TOKENS = 10**6
"""What a tokenizer without a length of its own says."""

_FAULTS = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


def check_parts(bundle: Bundle) -> None:
    """Refuse what the configurations show.

    Raises:
        BundleError: a UNet with other channels (of inpainting, say), text encoders of another width, a tokenizer with
            more tokens than its encoder, a scheduler that predicts something else.
    """
    unet, channels = bundle.unet.config, int(bundle.vae.config.latent_channels)
    if (unet.in_channels, unet.out_channels) != (channels, channels):
        kind = " Models for inpainting have so many." if unet.in_channels == 2 * channels + 1 else ""
        raise BundleError(
            f"the UNet takes {unet.in_channels} channels and gives {unet.out_channels}; making pictures from texts "
            f"takes {channels} and {channels}, as many as the autoencoder has.{kind} Use a text-to-image base model."
        )
    widths = [int(encoder.config.hidden_size) for encoder in _encoders(bundle)]
    if sum(widths) != unet.cross_attention_dim:
        raise BundleError(f"the UNet takes texts {unet.cross_attention_dim} wide, the text encoders give {widths}")
    for tokenizer, encoder in zip(bundle.tokenizers, _encoders(bundle), strict=True):
        _check_tokenizer(tokenizer, encoder)
    prediction = bundle.scheduler.config.get("prediction_type", "epsilon")
    if prediction not in _PREDICTIONS:
        raise BundleError(f"the scheduler's prediction_type is {prediction!r}; {' and '.join(_PREDICTIONS)} are known")


def _encoders(bundle: Bundle) -> tuple[Any, ...]:
    return tuple(each for each in (bundle.text_encoder, bundle.text_encoder_2) if each is not None)


def _check_tokenizer(tokenizer: Any, encoder: Any) -> None:
    """Refuse ids beyond the encoder's; a tokenizer that does not say how long prompts are gets the encoder's length."""
    if len(tokenizer) > encoder.config.vocab_size:
        raise BundleError(f"the tokenizer has {len(tokenizer)} tokens, its encoder {encoder.config.vocab_size}")
    length = int(encoder.config.max_position_embeddings)
    if tokenizer.model_max_length > _MORE_TOKENS:
        tokenizer.model_max_length = length
    if tokenizer.model_max_length > length:
        raise BundleError(f"the tokenizer gives {tokenizer.model_max_length} tokens, its encoder takes {length}")


@torch.inference_mode()
def try_out(bundle: Bundle) -> None:
    """One step at a small size, with the scheduler. Raises BundleError when that fails."""
    try:
        scheduler = type(bundle.scheduler).from_config(bundle.scheduler.config)
        scheduler.set_timesteps(bundle.config.sampling.steps, device=bundle.device)
        side = 2 * bundle.pixels_multiple // bundle.pixels_per_latent  # a norm wants more than one place
        noise = torch.randn(1, bundle.unet.config.in_channels, side, side, generator=torch.Generator().manual_seed(0))
        latents, timestep = noise.to(bundle.device, bundle.unet.dtype), scheduler.timesteps[0]
        embeddings = encode_tokens(bundle, tokenize(bundle, ["a [V]"]))
        predicted = predict(bundle, scheduler.scale_model_input(latents, timestep), timestep.expand(1), embeddings)
        scheduler.step(predicted, timestep, latents)
        bundle.scheduler.add_noise(latents, latents, timestep.expand(1).long())
    except _FAULTS as error:
        raise BundleError(f"the parts of {bundle.source} do not fit each other: {error}") from error
