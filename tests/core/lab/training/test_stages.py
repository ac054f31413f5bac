"""The whole training, a few steps a stage, on pictures drawn here: parquet in, a bundle that opens out."""

import json
import shutil

import numpy as np
import pytest
import torch

from core.errors import BundleError
from core.hyperdreambooth.model.loading import load_bundle
from core.hyperdreambooth.personalize import personalize
from core.hyperdreambooth.records import PersonalizeOptions
from core.lab.training import __main__ as program
from core.lab.training.architecture import fresh_pipeline
from core.lab.training.data import LatentCache
from core.lab.training.export import export_bundle
from core.lab.training.recipe import load_recipe
from core.lab.training.stages import STAGES, TrainingRun
from tests.core.lab.training.small_recipe import linear_recipe, trained_on, without


def test_a_training_that_stops_early_writes_no_bundle_unless_told_to(recipe, bundle_folder, tmp_path, monkeypatch):
    for stage in ("autoencoder", "tokenizer"):
        shutil.copytree(recipe.parent / "work" / stage, tmp_path / "work" / stage)
    for name in ("faces.parquet", recipe.name):
        shutil.copy(recipe.parent / name, tmp_path)
    older = tmp_path / "bundle" / "hypernetwork" / "model.safetensors"
    older.parent.mkdir(parents=True)
    older.write_bytes(b"of another base model")
    command = ["training", str(tmp_path / recipe.name), "--device", "cpu"]
    monkeypatch.setattr("sys.argv", [*command, "--only", "autoencoder"])
    program.main()
    assert [file for file in (tmp_path / "bundle").rglob("*") if file.is_file()] == [older]
    monkeypatch.setattr("sys.argv", [*command, "--export"])
    program.main()
    assert not load_bundle(tmp_path / "bundle").has_hypernetwork
    assert not (tmp_path / "bundle" / "classifier").exists(), "it was not trained"


def test_every_stage_leaves_a_sheet_and_curves(recipe, bundle_folder):
    for stage in ("autoencoder", "classifier", "recogniser", "decoder", "base", "preoptimize", "hypernetwork"):
        assert (recipe.parent / "work" / stage / "samples.png").is_file()
    assert (bundle_folder / "bundle.json").is_file()


def test_a_later_run_has_the_tokenizer_of_the_first(recipe, bundle_folder):
    kept = recipe.parent / "work" / "tokenizer" / "tokenizer.json"
    first = fresh_pipeline(load_recipe(recipe)).tokenizer.get_vocab()
    assert first == load_bundle(bundle_folder, device="cpu").tokenizer.get_vocab()
    vocabulary = json.loads(kept.read_text())["model"]["vocab"]
    assert vocabulary == first


def test_a_linear_hypernetwork_is_trained_on_the_same_base_and_resumes(recipe, bundle_folder, tmp_path):
    file, run = trained_on(recipe.parent, linear_recipe(), tmp_path)
    fitted = run.network.encoder.state_dict()
    assert fitted["face_directions"].any()
    again = TrainingRun(load_recipe(file), device="cpu")
    assert all(again.load(stage) for stage in STAGES)
    torch.testing.assert_close(again.network.state_dict(), run.network.state_dict())

    export_bundle(again.bundle, tmp_path / "bundle")
    opened = load_bundle(tmp_path / "bundle", device="cpu")
    photo = torch.zeros(1, 32, 32, 3, dtype=torch.uint8)
    made = personalize(opened, photo, PersonalizeOptions(steps=1))
    assert made.preview is not None
    assert made.weights.metadata.rank == 2

    unchanged = load_bundle(bundle_folder, device="cpu")
    torch.testing.assert_close(opened.unet.state_dict(), unchanged.unet.state_dict())

    described = tmp_path / "bundle" / "hypernetwork" / "config.json"
    described.write_text(described.read_text().replace('"width": 4', '"width": 5'))
    with pytest.raises(BundleError, match="does not fit its own description"):
        load_bundle(tmp_path / "bundle", device="cpu")
    described.write_text("{")
    with pytest.raises(BundleError, match="the hypernetwork in"):
        load_bundle(tmp_path / "bundle", device="cpu")


def test_a_hypernetwork_learns_from_synthetic_faces_as_well(recipe, bundle_folder, tmp_path):
    warped = linear_recipe().replace("noisiest = 0.5", "noisiest = 0.5\nwarped = 2")
    _, run = trained_on(recipe.parent, warped, tmp_path)
    assert np.load(tmp_path / "work" / "latents-warped.npy").shape[0] == 2 * len(run.faces)
    plain = np.load(tmp_path / "work" / "latents.npy")
    assert len(plain) == len(run.faces)


def test_the_base_learns_on_beside_a_hypernetwork_where_the_recipe_says_so(recipe, bundle_folder, tmp_path):
    joint = linear_recipe().replace("noisiest = 0.5", "personal = 0.5\nbase_rate = 0.25")
    file, run = trained_on(recipe.parent, joint, tmp_path)
    again = TrainingRun(load_recipe(file), device="cpu")
    assert all(again.load(stage) for stage in STAGES)
    for name in ("unet", "text_encoder"):
        learnt, before = (b.components[name].state_dict() for b in (again.bundle, load_bundle(bundle_folder)))
        torch.testing.assert_close(learnt, run.bundle.components[name].state_dict())
        assert any(not torch.equal(learnt[key], before[key]) for key in learnt)


def test_the_decoder_learns_on_and_leaves_the_latents_as_they_are(recipe, bundle_folder):
    run = TrainingRun(load_recipe(recipe), device="cpu")
    assert run.load("autoencoder")
    before = {name: tensor.clone() for name, tensor in run.bundle.vae.state_dict().items()}
    assert run.load("decoder")
    after = run.bundle.vae.state_dict()
    changed = {name.partition(".")[0] for name in after if not torch.equal(after[name], before[name])}
    assert changed == {"decoder", "post_quant_conv"}
    opened = load_bundle(bundle_folder, device="cpu").vae.state_dict()
    torch.testing.assert_close(opened, {name: tensor.half().float() for name, tensor in after.items()})


def test_a_recipe_without_a_decoder_table_keeps_the_autoencoders(recipe, tmp_path):
    assert without("decoder", recipe, tmp_path).load("decoder")


def test_latents_are_encoded_again_when_the_encoder_changed_and_not_for_the_decoder(recipe, bundle_folder, tmp_path):
    run = TrainingRun(load_recipe(recipe), device="cpu")
    assert run.load("autoencoder")
    arguments = {"styled": 1, "seed": 0, "file": tmp_path / "latents.npy"}
    names = run.recipe.data.styles

    def encoded() -> torch.Tensor:
        return LatentCache.build(run.bundle, run.faces, names, **arguments).plain

    first = encoded()
    kept = arguments["file"].stat().st_mtime_ns
    assert run.load("decoder")
    assert torch.equal(encoded(), first)
    assert arguments["file"].stat().st_mtime_ns == kept
    with torch.no_grad():
        run.bundle.vae.encoder.conv_in.weight.mul_(1.5)
    assert not torch.equal(encoded(), first)


def test_a_recipe_without_a_recogniser_has_no_such_stage(recipe, tmp_path):
    run = without("recogniser", recipe, tmp_path)
    assert run.load("recogniser")
    assert run.bundle.recogniser is None


def test_a_stage_alone_leaves_the_others(recipe, tmp_path, monkeypatch):
    for file in (recipe, recipe.with_name("faces.parquet")):
        shutil.copy(file, tmp_path / file.name)
    work = tmp_path / "work"
    for stage, file in (("autoencoder", "vae.safetensors"), ("decoder", "decoder.safetensors")):
        command = ["training", str(tmp_path / recipe.name), "--device", "cpu", "--stage", stage]
        monkeypatch.setattr("sys.argv", command)
        program.main()
        assert (work / stage / file).is_file()
    assert not (work / "base").exists()
    assert not (tmp_path / "bundle").exists()
