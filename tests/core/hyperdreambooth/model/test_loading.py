"""What is refused when a bundle is opened, and what opens although it is written in another way."""

import json
import shutil

import pytest
import torch
from diffusers import EulerDiscreteScheduler, StableDiffusionInpaintPipeline, UNet2DConditionModel
from safetensors.torch import load_file, save_file

from core.errors import BundleError
from core.hyperdreambooth.model.config import BundleConfig
from core.hyperdreambooth.model.loading import from_pipeline, load_bundle
from core.lab.testing import random_pipeline

PARTS = ("text_encoder", "unet", "vae")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pipeline") / "plain"
    random_pipeline().save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "copy")


def rewrite(folder, part, change):
    (file,) = (folder / part).glob("*.safetensors")
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file, metadata={"format": "pt"})


def names_of(folder, part):
    (file,) = (folder / part).glob("*.safetensors")
    return sorted(load_file(file))


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("place", [0.0, 0.5, 1.0])
def test_a_part_that_lacks_any_tensor_is_refused_by_name(folder, part, place):
    names = names_of(folder, part)
    lost = names[round(place * (len(names) - 1))]
    rewrite(folder, part, lambda tensors: tensors.pop(lost))
    with pytest.raises(BundleError, match=rf"{part} lacks .*{lost.removeprefix('text_model.')}.* damaged"):
        load_bundle(folder, device="cpu")


@pytest.mark.parametrize("part", PARTS)
def test_a_part_with_a_tensor_too_many_or_under_another_name_is_refused(folder, part):
    rewrite(folder, part, lambda tensors: tensors.update(extra=torch.zeros(2)))
    with pytest.raises(BundleError, match=rf"{part} has tensors that the model does not know: extra"):
        load_bundle(folder, device="cpu")
    rewrite(folder, part, lambda tensors: (tensors.pop("extra"), tensors.update(renamed=tensors.popitem()[1])))
    with pytest.raises(BundleError, match=rf"{part} lacks"):
        load_bundle(folder, device="cpu")


@pytest.mark.parametrize("part", PARTS)
def test_a_part_with_a_tensor_of_another_shape_is_refused(folder, part):
    def widen(tensors):
        name = min(tensors)
        tensors[name] = torch.cat([tensors[name], tensors[name]])

    rewrite(folder, part, widen)
    with pytest.raises(BundleError, match=r"shape|size"):
        load_bundle(folder, device="cpu")


def test_all_tensors_under_names_of_another_version_are_refused(folder):
    """As transformers 5.0 to 5.5 read what later ones write: it is told, and no prompt is without effect."""

    def rename(tensors):
        for name in list(tensors):
            tensors[f"other.{name}"] = tensors.pop(name)

    rewrite(folder, "text_encoder", rename)
    with pytest.raises(BundleError, match=r"text_encoder lacks .* and \d+ more: .*version of transformers"):
        load_bundle(folder, device="cpu")


def test_positions_that_old_files_count_out_are_no_tensor_too_many(folder):
    positions = {"text_model.embeddings.position_ids": torch.arange(16)[None]}
    rewrite(folder, "text_encoder", lambda tensors: tensors.update(positions))
    load_bundle(folder, device="cpu")


def test_a_damaged_file_is_refused(folder):
    (file,) = (folder / "unet").glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(BundleError, match="cannot be opened"):
        load_bundle(folder, device="cpu")


@pytest.mark.parametrize("parts", [PARTS, ("unet",), ("text_encoder", "vae")])
@pytest.mark.parametrize("variant", ["fp16", "bf16"])
def test_weights_that_are_there_as_a_variant_only_open_in_fp32(saved, folder, parts, variant):
    for part in parts:
        (file,) = (folder / part).glob("*.safetensors")
        file.rename(file.with_suffix(f".{variant}.safetensors"))
    opened, plain = load_bundle(folder, device="cpu"), load_bundle(saved, device="cpu")
    assert opened.fingerprint == plain.fingerprint
    assert {parameter.dtype for module in opened.modules for parameter in module.parameters()} == {torch.float32}


def test_weights_in_half_precision_open_in_fp32(tmp_path):
    pipeline = random_pipeline()
    for part in PARTS:
        getattr(pipeline, part).half()
    pipeline.save_pretrained(tmp_path, variant="fp16")
    opened = load_bundle(tmp_path, device="cpu")
    assert {parameter.dtype for module in opened.modules for parameter in module.parameters()} == {torch.float32}


@pytest.mark.parametrize("name", ["sd.safetensors", "sd.ckpt"])
@pytest.mark.parametrize("inside", [False, True])
def test_a_checkpoint_in_one_file_says_how_to_convert_it(tmp_path, name, inside):
    (tmp_path / name).write_bytes(b"any")
    with pytest.raises(BundleError, match=rf"{name} is a checkpoint in a single file.*from_single_file.*save_pretr"):
        load_bundle(tmp_path if inside else tmp_path / name)


def unet(**changes):
    config = {key: value for key, value in random_pipeline().unet.config.items() if not key.startswith("_")}
    return UNet2DConditionModel.from_config(config | changes)


def test_an_inpainting_pipeline_is_refused_when_it_is_opened(tmp_path):
    parts = random_pipeline().components | {"unet": unet(in_channels=9)}
    parts.pop("image_encoder", None)
    StableDiffusionInpaintPipeline(**parts, requires_safety_checker=False).save_pretrained(tmp_path)
    with pytest.raises(BundleError, match=r"takes 9 channels.*for inpainting.*text-to-image"):
        load_bundle(tmp_path, device="cpu")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"in_channels": 8}, "takes 8 channels and gives 4"),
        ({"out_channels": 8}, "takes 4 channels and gives 8"),
        ({"cross_attention_dim": 24}, r"24 wide, the text encoders give \[16\]"),
    ],
)
def test_a_unet_of_another_kind_is_refused(changes, said):
    pipeline = random_pipeline()
    pipeline.unet = unet(**changes)
    with pytest.raises(BundleError, match=said):
        from_pipeline(pipeline, BundleConfig(name="x"))


@pytest.mark.parametrize("changes", [{"num_class_embeds": 3}, {"addition_embed_type": "text_image"}])
def test_a_unet_that_wants_more_than_a_text_is_refused_when_it_is_opened(tmp_path, changes):
    pipeline = random_pipeline()
    if "addition_embed_type" in changes:
        changes = changes | {"encoder_hid_dim": 16, "addition_embed_type_num_heads": 2}
    pipeline.unet = unet(**changes)
    pipeline.save_pretrained(tmp_path)
    with pytest.raises(BundleError):
        load_bundle(tmp_path, device="cpu")


def test_a_scheduler_that_predicts_something_else_is_refused():
    pipeline = random_pipeline()
    pipeline.scheduler = EulerDiscreteScheduler(prediction_type="sample")
    with pytest.raises(BundleError, match="prediction_type is 'sample'"):
        from_pipeline(pipeline, BundleConfig(name="x"))


def test_a_tokenizer_has_no_more_tokens_than_its_encoder(folder):
    file = folder / "tokenizer" / "tokenizer_config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps({**config, "model_max_length": 77}))
    with pytest.raises(BundleError, match="gives 77 tokens, its encoder takes 16"):
        load_bundle(folder, device="cpu")
    config.pop("model_max_length")
    file.write_text(json.dumps(config))
    assert load_bundle(folder, device="cpu").tokenizer.model_max_length == 16
