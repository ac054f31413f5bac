"""The methods that HyperDreamBooth is held against, on the same base model, loss, number of rows and device.

Both are as in their papers, with the plain prompt and the photo alone at all timesteps, and without DreamBooth's class
pictures (prior preservation): HyperDreamBooth has none either.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from core.errors import BundleError
from core.hyperdreambooth.finetune import CLIP, PROMPT
from core.hyperdreambooth.model.bundle import Bundle
from core.hyperdreambooth.model.denoising import denoising_loss
from core.hyperdreambooth.model.prompts import tokenize


def dreambooth(
    bundle: Bundle, photo: Float[Tensor, "1 c h w"], seed: int, learning_rate: float, *, steps: int
) -> tuple[Bundle, int]:
    """DreamBooth (arXiv 2208.12242): all weights of UNet and text encoder. Returns the changed model and its bytes."""
    changed = replace(bundle, unet=copy.deepcopy(bundle.unet), text_encoder=copy.deepcopy(bundle.text_encoder))
    modules = (changed.unet, changed.text_encoder)
    parameters = [p for module in modules for p in module.requires_grad_(True).parameters()]
    _train(changed, photo, parameters, seed, learning_rate, steps)
    for module in modules:
        module.requires_grad_(False)
    return changed, sum(p.numel() for p in parameters) * 2  # kept in fp16


def textual_inversion(
    bundle: Bundle, photo: Float[Tensor, "1 c h w"], seed: int, learning_rate: float, *, steps: int
) -> tuple[Bundle, int]:
    """Textual Inversion (arXiv 2208.01618): the identifier's embedding alone. Returns the changed model and its bytes.

    Raises:
        BundleError: the tokenizer splits the identifier into several tokens.
    """
    token = _identifier_token(bundle)
    changed = replace(bundle, text_encoder=copy.deepcopy(bundle.text_encoder))
    table = changed.text_encoder.get_input_embeddings()  # type: ignore[operator]
    start = int(tokenize(bundle, [bundle.class_noun])[0, 1])  # the paper's: a word for the coarse class
    vector = table.weight[start].detach().clone().requires_grad_(True)
    with _embedding(table, token, vector):
        _train(changed, photo, [vector], seed, learning_rate, steps)
    with torch.no_grad():
        table.weight[token] = vector
    return changed, vector.numel() * 4


def _train(
    bundle: Bundle, photo: Tensor, parameters: list[Tensor], seed: int, learning_rate: float, steps: int
) -> None:
    rows = bundle.config.finetune.rows
    generator = torch.Generator("cpu").manual_seed(seed)
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=1e-2, fused=True)
    tokens = tokenize(bundle, [PROMPT.format(noun=bundle.class_noun)]).expand(rows, -1)
    latents = photo.expand(rows, -1, -1, -1)
    for _ in range(steps):
        with torch.autocast(bundle.device.type, torch.bfloat16, enabled=bundle.device.type == "cuda"):
            loss = denoising_loss(bundle, latents, tokens, generator=generator).mean()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(parameters, CLIP)
        optimizer.step()


def _identifier_token(bundle: Bundle) -> int:
    with_it, without = (tokenize(bundle, [text])[0] for text in (bundle.identifier, ""))
    if int((with_it != without).sum()) > 2:
        raise BundleError(f"the tokenizer splits {bundle.identifier!r}: Textual Inversion needs one token")
    return int(with_it[1])


@contextmanager
def _embedding(table: nn.Module, token: int, vector: Tensor) -> Iterator[None]:
    """Look ``token`` up in ``vector`` instead of the table."""

    def swap(_table: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return torch.where((inputs[0] == token)[..., None], vector, output)

    handle = table.register_forward_hook(swap)
    try:
        yield
    finally:
        handle.remove()
