"""Begin with the parts of an earlier bundle instead of random ones, as far as their shapes agree.

A bundle of twice the size has one level more in its autoencoder: the inner levels are taken, the outer one is new. Its
latents can then be held near the earlier ones (``autoencoder.anchor``), so that the UNet still knows them.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from core.hyperdreambooth.model.bundle import Bundle

TOKENS, POSITIONS = "token_embedding.weight", "position_embedding.weight"


@torch.no_grad()
def inherit(bundle: Bundle, earlier: Bundle, *, seed: int) -> None:
    """Put the earlier bundle's parameters into the parts of this one. Raises RuntimeError where a UNet's do not fit."""
    bundle.unet.load_state_dict(earlier.unet.state_dict())
    _inherit_text(bundle, earlier, seed)
    _inherit_autoencoder(bundle.vae, earlier.vae)


@torch.no_grad()
def earlier_latents(vae: Any, pixels: Float[Tensor, "n 3 h w"], side: int) -> Float[Tensor, "n c high wide"]:
    """What an earlier autoencoder makes of pictures at its own size."""
    latents: Tensor = vae.encode(functional.interpolate(pixels, (side, side), mode="area")).latent_dist.mean
    return latents


def _inherit_text(bundle: Bundle, earlier: Bundle, seed: int) -> None:
    """Tokens that both know keep their vectors; new ones are random, of the same spread. Later places repeat the last
    that there was.
    """
    known, own = earlier.tokenizer.get_vocab(), bundle.tokenizer.get_vocab()
    before, state = earlier.text_encoder.state_dict(), bundle.text_encoder.state_dict()
    for name, value in state.items():
        if name.endswith(TOKENS):
            generator = torch.Generator().manual_seed(seed)
            value.copy_(before[name].std() * torch.randn(value.shape, generator=generator))
            shared = [token for token in own if token in known]
            value[[own[token] for token in shared]] = before[name][[known[token] for token in shared]]
        elif name.endswith(POSITIONS):
            places = min(len(value), len(before[name]))
            value[:places], value[places:] = before[name][:places], before[name][-1]
        elif name in before and value.shape == before[name].shape:
            value.copy_(before[name])
    bundle.text_encoder.load_state_dict(state)


def _inherit_autoencoder(vae: Any, earlier: Any) -> None:
    """The inner levels, those of the fewest pixels; all of them where there are as many."""
    fresh = len(vae.encoder.down_blocks) - len(earlier.encoder.down_blocks)
    pairs = [(vae.quant_conv, earlier.quant_conv), (vae.post_quant_conv, earlier.post_quant_conv)]
    for coder, before in ((vae.encoder, earlier.encoder), (vae.decoder, earlier.decoder)):
        pairs += [(part, _named(before, name)) for name, part in coder.named_children() if "blocks" not in name]
    pairs += zip(vae.encoder.down_blocks[fresh:], earlier.encoder.down_blocks, strict=True)
    pairs += zip(vae.decoder.up_blocks, earlier.decoder.up_blocks, strict=False)
    for part, before in pairs:
        _take(part, before)


def _take(part: nn.Module, before: nn.Module) -> None:
    """The parameters whose names and shapes agree."""
    state = part.state_dict()
    state |= {name: value for name, value in before.state_dict().items() if _fits(state, name, value)}
    part.load_state_dict(state)


def _fits(state: dict[str, Tensor], name: str, value: Tensor) -> bool:
    return name in state and state[name].shape == value.shape


def _named(module: nn.Module, name: str) -> nn.Module:
    return module.get_submodule(name)
