"""The real loaders, with models of their real classes and random weights in a folder."""

import numpy as np
import pytest
from tokenizers import pre_tokenizers
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPTokenizer,
    ViTConfig,
    ViTImageProcessor,
    ViTModel,
)

from core.lab.evaluation.similarity import load_similarity

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)


def test_dino_compares_pictures(tmp_path, pictures):
    small = ViTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=32)
    ViTModel(small).save_pretrained(tmp_path)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    dino = load_similarity(str(tmp_path), text=False)
    cosines = dino.images(pictures, pictures)
    assert np.diag(cosines) == pytest.approx([1, 1], abs=1e-5)


def test_clip_compares_pictures_and_texts(tmp_path, pictures):
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    CLIPTokenizer(vocab={token: i for i, token in enumerate(tokens)}, merges=[]).save_pretrained(tmp_path)
    text = {"vocab_size": len(tokens), "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
            "num_attention_heads": 2, "bos_token_id": len(tokens) - 2, "eos_token_id": len(tokens) - 1}  # fmt: skip
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
              "image_size": 32, "patch_size": 16}  # fmt: skip
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)).save_pretrained(tmp_path)
    size = {"height": 32, "width": 32}
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=size).save_pretrained(tmp_path)
    clip = load_similarity(str(tmp_path), text=True)
    assert np.diag(clip.images(pictures, pictures)) == pytest.approx([1, 1], abs=1e-5)
    assert clip.texts(pictures, ["a", "b c"]).shape == (2,)


def test_a_model_that_cannot_be_had_is_a_reason(tmp_path):
    assert "cannot be had" in load_similarity(str(tmp_path / "nowhere"), text=False)
