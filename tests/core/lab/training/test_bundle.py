"""The bundle that a training leaves."""

import shutil
from dataclasses import replace

import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image

from core.errors import BundleError
from core.hyperdreambooth.faces.recogniser import load_recogniser
from core.hyperdreambooth.model.loading import load_bundle
from core.hyperdreambooth.personalize import personalize
from core.hyperdreambooth.records import PersonalizeOptions
from core.lab.classifier import load_classifier
from core.lab.training.export import save_samples


def test_the_bundle_is_an_ordinary_diffusers_pipeline(bundle_folder):
    pipeline = StableDiffusionPipeline.from_pretrained(bundle_folder)
    pipeline.set_progress_bar_config(disable=True)
    picture = pipeline("a face", num_inference_steps=2, height=32, width=32).images[0]
    assert picture.size == (32, 32)


def test_the_classifier_ships_with_what_it_gets_right(bundle_folder):
    classifier = load_classifier(bundle_folder)
    assert classifier.config.styles == ("photo", "pencil sketch", "neon sign")
    assert 0 <= classifier.config.style_accuracy <= 1
    assert set(classifier.config.attribute_accuracy) == {"man", "smiling"}
    pictures = torch.zeros(2, 32, 32, 3, dtype=torch.uint8)
    assert set(classifier.style_of(pictures)) <= set(classifier.config.styles)
    assert classifier.shows(pictures, "smiling")[0] in (True, False)
    assert load_classifier(bundle_folder.parent) is None


def test_the_recogniser_ships_with_how_well_it_tells_people_apart(bundle_folder):
    config = load_recogniser(bundle_folder).config
    assert config.channels == (8, 8)
    for measured in (config.auc, config.accepted, config.styled_auc):
        assert 0 <= measured <= 1
    assert -1 <= config.threshold <= 1


def test_each_style_and_each_attribute_has_a_sample(bundle_folder, tmp_path):
    bundle = load_bundle(bundle_folder, device="cpu")
    config = replace(bundle.config, attributes=("blond hair", "on a blue background"))
    styled = replace(config.finetune, styles=("pencil sketch",))
    save_samples(bundle.configured(replace(config, finetune=styled)), tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {
        "pencil-sketch.webp",
        "blond-hair.webp",
        "on-a-blue-background.webp",
    }
    with Image.open(tmp_path / "pencil-sketch.webp") as sample:
        assert sample.size == (bundle.resolution, bundle.resolution)


def test_the_bundle_personalizes(bundle_folder):
    bundle = load_bundle(bundle_folder, device="cpu")
    assert bundle.has_hypernetwork
    photo = torch.zeros(1, 32, 32, 3, dtype=torch.uint8)
    assert personalize(bundle, photo, PersonalizeOptions()).weights.metadata.bundle == "drawn"


def test_all_weights_are_fp16_safetensors(bundle_folder):
    suffixes = {file.suffix for file in bundle_folder.rglob("*") if file.is_file()}
    assert suffixes <= {".json", ".safetensors", ".txt", ".png", ".webp"}
    hypernetwork = next(bundle_folder.glob("hypernetwork/*.safetensors"))
    assert hypernetwork.stat().st_size > 0


def test_a_folder_that_is_no_pipeline_is_a_bundle_error(tmp_path):
    with pytest.raises(BundleError):
        load_bundle(tmp_path)
    with pytest.raises(BundleError, match="neither a folder nor a hub id"):
        load_bundle("./nowhere")


def test_a_hypernetwork_of_other_targets_is_refused(bundle_folder, tmp_path):

    copy = tmp_path / "copy"
    shutil.copytree(bundle_folder, copy)
    file = copy / "bundle.json"
    file.write_text(file.read_text().replace('"attention+geglu"', '"attention"'))
    with pytest.raises(BundleError, match="other targets"):
        load_bundle(copy)
