"""Prompts to token ids and embeddings, by one text encoder or by SDXL's two."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from core.hyperdreambooth.model.adapters import adapted
from core.hyperdreambooth.model.bundle import Bundle
from core.hyperdreambooth.model.lidb import NO_FACTORS, LayerFactors


@dataclass(frozen=True)
class Embeddings:
    """Prompts as the UNet takes them; ``pooled`` is one vector a prompt, of SDXL's second text encoder."""

    tokens: Float[Tensor, "n tokens width"]
    pooled: Float[Tensor, "n pooled"] | None = None

    def of(self, rows: slice | Sequence[int]) -> Embeddings:
        """Those of some of the rows."""
        return Embeddings(self.tokens[rows], None if self.pooled is None else self.pooled[rows])


def tokenize(bundle: Bundle, prompts: Sequence[str]) -> Int[Tensor, "n tokens"]:
    """Token ids at the encoder's full length, with the identifier in place of ``[V]``; longer prompts are cut off.

    With two text encoders, the ids of the second follow those of the first.
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
        for tokenizer in bundle.tokenizers
    ]
    return torch.cat(ids, dim=1).to(bundle.device)


def encode_tokens(bundle: Bundle, tokens: Int[Tensor, "n tokens"], factors: LayerFactors = NO_FACTORS) -> Embeddings:
    """Token ids to embeddings, through the text encoders as changed by ``factors`` (merged).

    SDXL takes the last layer but one of both, side by side, and the second one's summary of the prompt.
    """
    second = bundle.text_encoder_2
    with adapted(bundle.text_encoders, factors):
        if second is None:
            return Embeddings(bundle.text_encoder(tokens)[0])
        own, others = tokens.split([bundle.tokenizer.model_max_length, bundle.tokenizer_2.model_max_length], dim=1)
        first, last = bundle.text_encoder(own, output_hidden_states=True), second(others, output_hidden_states=True)
    hidden, pooled = torch.cat([first.hidden_states[-2], last.hidden_states[-2]], dim=-1), last[0]
    if bundle.zero_empty:
        not_empty = (tokens != tokenize(bundle, [""])).any(dim=1, keepdim=True)
        hidden, pooled = hidden * not_empty[..., None], pooled * not_empty
    return Embeddings(hidden, pooled)
