"""Each export is opened by a pipeline that knows nothing of this project, and draws the same picture."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from safetensors import safe_open
from safetensors.torch import load
from transformers import CLIPTextConfig, CLIPTextModel

from core.errors import WeightsMismatch
from core.hyperdreambooth.formats import exports, lidb_file
from core.hyperdreambooth.formats.exports import Layout, Pair, balanced
from core.hyperdreambooth.formats.lidb_weights import layout_of, merged_factors, to_bytes
from core.hyperdreambooth.model.config import BundleConfig, LidbConfig
from core.hyperdreambooth.model.loading import from_pipeline, load_bundle
from core.hyperdreambooth.model.targets import find_targets
from core.lab.testing import random_bundle
from core.settings import EMBEDDED_BUNDLE
from tests.core.hyperdreambooth.plain import assert_alike, narrow_stable_diffusion, ours, someone, theirs


@pytest.fixture(scope="module")
def tiny():
    return random_bundle(with_hypernetwork=False)


@pytest.fixture(scope="module")
def embedded():
    return load_bundle(EMBEDDED_BUNDLE, device="cpu")


@pytest.fixture(scope="module")
def plain():
    return StableDiffusionPipeline.from_pretrained(EMBEDDED_BUNDLE, safety_checker=None)


def export(weights, bundle, file_format, **options):
    return exports.export(lidb_file.read(to_bytes(weights)), layout_of(bundle), file_format, **options)


@pytest.mark.parametrize(("precision", "levels"), [("fp32", 1), ("fp16", 3)])
@pytest.mark.parametrize("file_format", ["peft", "kohya"])
def test_a_plain_pipeline_draws_the_same_picture(embedded, plain, tmp_path, file_format, precision, levels):
    weights = someone(embedded)
    file = tmp_path / "person.safetensors"
    file.write_bytes(export(weights, embedded, file_format, precision=precision))
    expected = ours(embedded, weights)
    without = theirs(plain, embedded)
    assert_alike(theirs(plain, embedded, file), expected, without=without, levels=levels)


@pytest.mark.parametrize("file_format", ["peft", "kohya"])
def test_every_target_is_in_the_file_with_its_whole_change(tiny, file_format):
    weights = someone(tiny)
    tensors = load(export(weights, tiny, file_format, precision="fp32"))
    assert len(tensors) == len(tiny.targets) * (2 if file_format == "peft" else 3)
    down, up = (".lora_A.", ".lora_B.") if file_format == "peft" else (".lora_down.", ".lora_up.")
    changes = [tensors[key.replace(down, up)] @ tensors[key] for key in tensors if down in key]
    total = sum(float(change.square().sum()) for change in changes)
    expected = sum(float(f.delta().square().sum()) for f in merged_factors(weights, tiny).values())
    assert total == pytest.approx(expected, rel=1e-4)
    assert all(float(value) == weights.metadata.rank for key, value in tensors.items() if key.endswith(".alpha"))


@pytest.mark.parametrize("file_format", ["peft", "kohya"])
def test_a_plain_pipeline_with_stable_diffusions_layers_does_so_as_well(tmp_path, file_format):
    pipeline = narrow_stable_diffusion()
    bundle = from_pipeline(pipeline, BundleConfig(name="narrow", resolution=64))
    assert [target.name for target in bundle.targets] == [target.name for target in stable_diffusion_targets()]
    weights = someone(bundle, rank=4)
    file = tmp_path / "person.safetensors"
    file.write_bytes(export(weights, bundle, file_format))
    expected, without = ours(bundle, weights), theirs(pipeline, bundle)
    assert_alike(theirs(pipeline, bundle, file), expected, without=without, levels=3)


@pytest.mark.parametrize("file_format", ["peft", "kohya"])
def test_a_plain_pipeline_takes_convolutions_too(tmp_path, file_format):
    pipeline = narrow_stable_diffusion()
    lidb = LidbConfig(preset="convolutions")
    bundle = from_pipeline(pipeline, BundleConfig(name="narrow", resolution=64, lidb=lidb))
    weights = someone(bundle, rank=4)
    file = tmp_path / "person.safetensors"
    file.write_bytes(export(weights, bundle, file_format))
    expected, without = ours(bundle, weights), theirs(pipeline, bundle)
    assert_alike(theirs(pipeline, bundle, file), expected, without=without, levels=3)


def stable_diffusion_targets():
    """Those of Stable Diffusion 1.5's own layers, without their weights."""
    text = CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12)
    with torch.device("meta"):
        unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8)
        return find_targets({"unet": unet, "text_encoder": CLIPTextModel(text)}, "attention+geglu")


def names_of_kohya():
    """What kohya's sd-scripts call the layers of Stable Diffusion 1.5 that are personalized here."""
    blocks = [f"down_blocks_{block}_attentions_{layer}" for block in (0, 1, 2) for layer in (0, 1)]
    blocks += ["mid_block_attentions_0"]
    blocks += [f"up_blocks_{block}_attentions_{layer}" for block in (1, 2, 3) for layer in (0, 1, 2)]
    inside = [f"attn{number}_{which}" for number in (1, 2) for which in ("to_q", "to_k", "to_v", "to_out_0")]
    for block in blocks:
        yield from (f"lora_unet_{block}_transformer_blocks_0_{layer}" for layer in [*inside, "ff_net_0_proj"])
    for number in range(12):
        for which in ("q_proj", "k_proj", "v_proj", "out_proj"):
            yield f"lora_te_text_model_encoder_layers_{number}_self_attn_{which}"


def test_stable_diffusions_layers_have_the_names_that_a1111_and_comfyui_read():
    keys = {
        exports._kohya(exports._KOHYA, target.name, part)
        for target in stable_diffusion_targets()
        for part in ("down", "up", "alpha")
    }
    assert keys == {
        f"{name}{part}" for name in names_of_kohya() for part in (".lora_down.weight", ".lora_up.weight", ".alpha")
    }
    assert "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q.lora_down.weight" in keys
    assert "lora_te_text_model_encoder_layers_0_self_attn_q_proj.lora_up.weight" in keys
    assert len(keys) == 3 * 192


@pytest.mark.parametrize("file_format", ["peft", "kohya"])
def test_the_same_weights_are_the_same_bytes_and_fp16_is_the_default(tiny, file_format):
    data = export(someone(tiny), tiny, file_format)
    assert data == export(someone(tiny), tiny, file_format)
    assert {tensor.dtype for tensor in load(data).values()} == {torch.float16}


def test_the_files_say_what_they_are(tiny, tmp_path):
    said = {}
    for file_format in ("peft", "kohya"):
        file = tmp_path / f"{file_format}.safetensors"
        file.write_bytes(export(someone(tiny), tiny, file_format))
        with safe_open(file, "pt") as opened:
            said[file_format] = opened.metadata()
    assert said["peft"]["hyperdreambooth.base"] == "tiny-random"
    assert said["peft"]["hyperdreambooth.trigger"] == "sks"
    assert said["peft"]["modelspec.trigger_phrase"] == "a sks face"
    assert not any(key.startswith("ss") for key in said["peft"])
    kohya = said["kohya"]
    assert (kohya["ss_network_dim"], kohya["ss_network_alpha"]) == ("3", "3")
    assert (kohya["ss_network_module"], kohya["ss_sd_model_name"]) == ("networks.lora", "tiny-random")
    assert json.loads(kohya["ss_tag_frequency"]) == {"face": {"a sks face": 1}}
    assert len(kohya["sshs_model_hash"]) == 64
    assert "ss_base_model_version" not in kohya, "it is no Stable Diffusion of a known size"


def test_a_base_of_stable_diffusions_width_is_called_so(tiny):
    layout = replace(layout_of(tiny), text_width=768)
    file = lidb_file.read(to_bytes(someone(tiny)))
    assert b'"ss_base_model_version":"sd_v1"' in exports.export(file, layout, "kohya")
    assert b'"modelspec.architecture":"stable-diffusion-v1/lora"' in exports.export(file, layout, "peft")


def test_factors_are_balanced_and_their_product_stays():
    up = np.array([[1e-5, 0.0], [2e-5, 0.0]], dtype=np.float32)
    pair = Pair(up, np.array([[300.0, 400.0, 0.0], [1.0, 1.0, 1.0]], dtype=np.float32))
    even = balanced(pair)
    np.testing.assert_allclose(even.up @ even.down, pair.up @ pair.down, rtol=1e-5)
    assert np.linalg.norm(even.up[:, 0]) == pytest.approx(np.linalg.norm(even.down[0]))
    assert np.array_equal(even.down[1], pair.down[1]), "a component that is zero is left alone"


def test_a_layout_survives_being_written_down(tiny):
    layout = layout_of(tiny)
    assert Layout.from_json(layout.to_json()) == layout


@pytest.mark.parametrize("pin", ["fingerprint", "basis", "targets", "bundle"])
def test_weights_of_another_bundle_are_refused(tiny, pin):
    weights = someone(tiny)
    foreign = replace(weights, metadata=replace(weights.metadata, **{pin: "another"}))
    with pytest.raises(WeightsMismatch, match="another"):
        export(foreign, tiny, "kohya")
