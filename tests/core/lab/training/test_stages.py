"""The whole training, a few steps a stage, on pictures drawn here: parquet in, a bundle that opens out."""

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image

from core.errors import BundleError
from core.hyperdreambooth.faces.recogniser import load_recogniser
from core.hyperdreambooth.model.config import LinearHyperNetworkConfig
from core.hyperdreambooth.model.loading import load_bundle
from core.hyperdreambooth.personalize import personalize
from core.hyperdreambooth.records import PersonalizeOptions
from core.lab.classifier import load_classifier
from core.lab.training import __main__ as program
from core.lab.training.architecture import fresh_pipeline
from core.lab.training.data import LatentCache
from core.lab.training.export import export_bundle
from core.lab.training.recipe import load_recipe
from core.lab.training.stages import STAGES, TrainingRun
from core.lab.training.start import start_from

RECIPE = """
output = "bundle"
work = "work"
seed = 3
[data]
train = ["faces.parquet"]
evaluate = "faces.parquet"
styled = 1
styles = ["pencil sketch", "neon sign"]
[bundle]
name = "drawn"
resolution = 32
lidb = { a = 8, b = 4 }
finetune = { rank = 2, steps = 2, rows = 2 }
sampling = { steps = 2, guidance_scale = 2.0, batch = 4 }
[network]
resolution = 32
stem = [8, 8, 8]
width = 16
heads = 2
encoder_layers = 1
decoder_layers = 1
head_width = 8
rank = 1
[autoencoder]
channels = [8, 16]
optimization = { steps = 2, batch = 4, learning_rate = 1e-3 }
[classifier]
attributes = ["man", "smiling"]
channels = [8, 8]
optimization = { steps = 2, batch = 8, learning_rate = 1e-3 }
[recogniser]
channels = [8, 8]
optimization = { steps = 2, batch = 4, learning_rate = 1e-3 }
[decoder]
optimization = { steps = 2, batch = 4, learning_rate = 1e-3 }
[base]
channels = [16, 32]
text_width = 32
text_layers = 1
optimization = { steps = 2, batch = 6, learning_rate = 1e-3 }
[preoptimize]
people = 4
group = 2
rows = 1
steps = 2
[hypernetwork]
optimization = { steps = 2, batch = 4, learning_rate = 1e-3 }
"""
LINEAR_NETWORK = """
resolution = 32
eigenfaces = 3
face_eigenfaces = 3
width = 4
rank = 1
"""
LINEAR_TRAINING = """
beta = 0.0
identity = 0.0
least_noise = 0.2
noisiest = 0.5
optimization = { steps = 2, batch = 4, learning_rate = 1e-3 }
"""


def linear_recipe() -> str:
    """A linear hypernetwork without pre-optimised targets, on the same base."""
    before, rest = RECIPE.split("[network]")
    stages = rest[rest.index("[autoencoder]") : rest.index("[preoptimize]")]
    return f"{before}[network]{LINEAR_NETWORK}{stages}[hypernetwork]{LINEAR_TRAINING}"


def trained_on(base: Path, text: str, folder: Path) -> tuple[Path, TrainingRun]:
    """A recipe in ``folder`` whose base is of another training, and its workshop after the hypernetwork's stage."""
    for stage in ("autoencoder", "base", "classifier", "decoder", "recogniser", "tokenizer"):
        shutil.copytree(base / "work" / stage, folder / "work" / stage)
    shutil.copy(base / "faces.parquet", folder)
    file = folder / "BUNDLE.toml"
    file.write_text(text)
    workshop = TrainingRun(load_recipe(file), device="cpu")
    assert [workshop.load(stage) for stage in STAGES] == [True, True, True, True, True, True, False, True]
    workshop.run("hypernetwork")
    return file, workshop


def without(table: str, recipe: Path, folder: Path) -> TrainingRun:
    """The workshop of the recipe less one of its tables."""
    before, _, rest = recipe.read_text().partition(f"[{table}]")
    shutil.copy(recipe.parent / "faces.parquet", folder)
    file = folder / "BUNDLE.toml"
    file.write_text(before + rest[rest.index("\n[") + 1 :])
    return TrainingRun(load_recipe(file), device="cpu")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("training")
    rng = np.random.default_rng(0)
    pictures = []
    for _ in range(8):
        stream = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(stream, "WEBP")
        pictures.append(stream.getvalue())
    identities = ["a", "a", "b", "b", "c", "c", "d", "e"]
    attributes = [["man"], ["woman", "smiling"]] * 4
    table = pa.table({"image": pictures, "identity": identities, "attributes": attributes})
    pq.write_table(table, folder / "faces.parquet")
    (folder / "BUNDLE.toml").write_text(RECIPE)
    return folder / "BUNDLE.toml"


@pytest.fixture(scope="module")
def bundle_folder(recipe) -> Path:
    patch = pytest.MonkeyPatch()
    patch.setattr("sys.argv", ["training", str(recipe), "--device", "cpu"])
    program.main()
    patch.undo()
    return recipe.parent / "bundle"


def test_a_recipe_may_say_how_many_identities_are_trained_on(recipe, tmp_path):
    shutil.copy(recipe.parent / "faces.parquet", tmp_path)
    (tmp_path / "BUNDLE.toml").write_text(RECIPE.replace("styled = 1\n", "styled = 1\nidentities = 2\n", 1))
    faces = TrainingRun(load_recipe(tmp_path / "BUNDLE.toml"), device="cpu").faces
    assert faces.identities == ("a", "a", "b", "b")
    assert len(faces.pictures) == len(faces.attributes) == 4


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


def test_every_stage_leaves_a_sheet_and_curves_to_look_at(recipe, bundle_folder):
    for stage in ("autoencoder", "classifier", "recogniser", "decoder", "base", "preoptimize", "hypernetwork"):
        assert (recipe.parent / "work" / stage / "samples.png").is_file()
    assert (bundle_folder / "bundle.json").is_file()


def test_the_bundle_is_an_ordinary_diffusers_pipeline(bundle_folder):
    pipeline = StableDiffusionPipeline.from_pretrained(bundle_folder)
    pipeline.set_progress_bar_config(disable=True)
    picture = pipeline("a face", num_inference_steps=2, height=32, width=32).images[0]
    assert picture.size == (32, 32)


def test_a_later_run_has_the_tokenizer_of_the_first(recipe, bundle_folder):
    kept = recipe.parent / "work" / "tokenizer" / "tokenizer.json"
    first = fresh_pipeline(load_recipe(recipe)).tokenizer.get_vocab()
    assert first == load_bundle(bundle_folder, device="cpu").tokenizer.get_vocab()
    vocabulary = json.loads(kept.read_text())["model"]["vocab"]
    assert vocabulary == first


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


def test_a_linear_hypernetwork_is_trained_on_the_same_base_and_resumes(recipe, bundle_folder, tmp_path):
    file, workshop = trained_on(recipe.parent, linear_recipe(), tmp_path)
    fitted = workshop.network.encoder.state_dict()
    assert fitted["face_directions"].any()
    again = TrainingRun(load_recipe(file), device="cpu")
    assert all(again.load(stage) for stage in STAGES)
    torch.testing.assert_close(again.network.state_dict(), workshop.network.state_dict())

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


def test_a_hypernetwork_learns_from_faces_of_nobody_as_well(recipe, bundle_folder, tmp_path):
    warped = linear_recipe().replace("noisiest = 0.5", "noisiest = 0.5\nwarped = 2")
    _, workshop = trained_on(recipe.parent, warped, tmp_path)
    assert np.load(tmp_path / "work" / "latents-warped.npy").shape[0] == 2 * len(workshop.faces)
    plain = np.load(tmp_path / "work" / "latents.npy")
    assert len(plain) == len(workshop.faces)


def test_a_base_that_learns_on_is_not_shown_faces_of_nobody(tmp_path):
    for wrong in ("warped = 1\nbase_rate = 0.25", "warped = -1"):
        file = tmp_path / "BUNDLE.toml"
        file.write_text(linear_recipe().replace("noisiest = 0.5", wrong))
        with pytest.raises(BundleError, match=r"BUNDLE.toml.hypernetwork: warped -?1 is 0 or more"):
            load_recipe(file)


def test_the_base_learns_on_beside_a_hypernetwork_where_the_recipe_says_so(recipe, bundle_folder, tmp_path):
    joint = linear_recipe().replace("noisiest = 0.5", "personal = 0.5\nbase_rate = 0.25")
    file, workshop = trained_on(recipe.parent, joint, tmp_path)
    again = TrainingRun(load_recipe(file), device="cpu")
    assert all(again.load(stage) for stage in STAGES)
    for name in ("unet", "text_encoder"):
        learnt, before = (b.components[name].state_dict() for b in (again.bundle, load_bundle(bundle_folder)))
        torch.testing.assert_close(learnt, workshop.bundle.components[name].state_dict())
        assert any(not torch.equal(learnt[key], before[key]) for key in learnt)


def test_a_finished_bundle_is_gone_on_from_and_only_its_hypernetwork_learns_who_it_is(
    recipe, bundle_folder, tmp_path, monkeypatch
):
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    _, workshop = trained_on(recipe.parent, linear_recipe(), first)
    export_bundle(workshop.bundle, first / "bundle")
    workshop.classifier.save(first / "bundle")
    shutil.copy(recipe.parent / "faces.parquet", second)
    identity = f"[identity]{LINEAR_TRAINING.replace('noisiest = 0.5', 'most_noise = 0.8')}"
    file = second / "BUNDLE.toml"
    file.write_text(linear_recipe().replace("width = 4\nrank = 1", "width = 4\nrank = 3") + identity)
    monkeypatch.setattr("sys.argv", ["training", str(file), "--from", str(first / "bundle"), "--device", "cpu"])
    program.main()

    before, after = (load_bundle(folder / "bundle", device="cpu") for folder in (first, second))
    for part in ("vae", "unet", "text_encoder"):
        torch.testing.assert_close(getattr(after, part).state_dict(), getattr(before, part).state_dict())
    assert after.fingerprint == before.fingerprint
    assert after.tokenizer.get_vocab() == before.tokenizer.get_vocab()
    assert load_classifier(second / "bundle") is not None
    assert after.hypernetwork.config.rank == 3
    old, new = before.hypernetwork.state_dict(), after.hypernetwork.state_dict()
    assert torch.equal(old["encoder.face_directions"], new["encoder.face_directions"])
    assert not torch.equal(old["mix"], new["mix"])

    with pytest.raises(SystemExit):
        program.main()  # the work has begun


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("rank = 1", "rank = 0"), "only a linear one's rank may be higher"),
        (("width = 4", "width = 5"), "only a linear one's rank may be higher"),
        (("a = 8, b = 4", "a = 8, b = 3"), "made for other layers"),
        (("channels = [8, 16]", "channels = [8, 24]"), "is not what the recipe describes"),
    ],
)
def test_a_recipe_for_other_parts_than_the_bundles_is_not_begun(recipe, tmp_path, change, message):
    _, workshop = trained_on(recipe.parent, linear_recipe(), tmp_path)
    export_bundle(workshop.bundle, tmp_path / "bundle")
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(recipe.parent / "faces.parquet", other)
    file = other / "BUNDLE.toml"
    file.write_text(linear_recipe().replace(*change))
    with pytest.raises(BundleError, match=message):
        start_from(tmp_path / "bundle", load_recipe(file), device="cpu")
    assert not (other / "work").exists()


def test_the_papers_hypernetwork_is_gone_on_from_as_it_is(recipe, bundle_folder, tmp_path):
    file = tmp_path / "BUNDLE.toml"
    file.write_text(recipe.read_text())
    shutil.copy(recipe.parent / "faces.parquet", tmp_path)
    start_from(bundle_folder, load_recipe(file), device="cpu")
    workshop = TrainingRun(load_recipe(file), device="cpu")
    assert workshop.load("hypernetwork")
    torch.testing.assert_close(
        workshop.network.state_dict(), load_bundle(bundle_folder, device="cpu").hypernetwork.state_dict()
    )


def test_whom_the_papers_hypernetwork_told_apart_is_left_behind_where_there_are_other_people(
    recipe, bundle_folder, tmp_path
):
    file = tmp_path / "BUNDLE.toml"
    file.write_text(recipe.read_text().replace("styled = 1", "styled = 1\nidentities = 2"))
    shutil.copy(recipe.parent / "faces.parquet", tmp_path)
    network = start_from(bundle_folder, load_recipe(file), device="cpu").network
    known = load_bundle(bundle_folder, device="cpu").hypernetwork
    assert len(network.identities) == 2 < len(known.identities)
    torch.testing.assert_close(network.head, known.head)


def test_without_a_hypernetwork_there_is_nothing_to_go_on_from(recipe, bundle_folder, tmp_path):
    shutil.copytree(bundle_folder, tmp_path / "bundle")
    shutil.rmtree(tmp_path / "bundle" / "hypernetwork")
    file = tmp_path / "BUNDLE.toml"
    file.write_text(recipe.read_text())
    with pytest.raises(BundleError, match="has no hypernetwork to go on from"):
        start_from(tmp_path / "bundle", load_recipe(file), device="cpu")


def test_a_table_of_two_kinds_is_the_one_that_knows_its_keys(recipe, tmp_path):
    file = tmp_path / "BUNDLE.toml"
    file.write_text(linear_recipe())
    assert load_recipe(file).network == LinearHyperNetworkConfig(32, eigenfaces=3, face_eigenfaces=3, width=4, rank=1)
    file.write_text(linear_recipe().replace("face_eigenfaces", "faces"))
    with pytest.raises(BundleError, match=r"BUNDLE.toml.network: unknown key"):
        load_recipe(file)


def test_the_decoder_learns_on_and_leaves_the_latents_as_they_are(recipe, bundle_folder):
    workshop = TrainingRun(load_recipe(recipe), device="cpu")
    assert workshop.load("autoencoder")
    before = {name: tensor.clone() for name, tensor in workshop.bundle.vae.state_dict().items()}
    assert workshop.load("decoder")
    after = workshop.bundle.vae.state_dict()
    changed = {name.partition(".")[0] for name in after if not torch.equal(after[name], before[name])}
    assert changed == {"decoder", "post_quant_conv"}
    opened = load_bundle(bundle_folder, device="cpu").vae.state_dict()
    torch.testing.assert_close(opened, {name: tensor.half().float() for name, tensor in after.items()})


def test_a_recipe_without_a_decoder_table_keeps_the_autoencoders(recipe, tmp_path):
    assert without("decoder", recipe, tmp_path).load("decoder")


def test_latents_are_encoded_again_when_the_encoder_changed_and_not_for_the_decoder(recipe, bundle_folder, tmp_path):
    workshop = TrainingRun(load_recipe(recipe), device="cpu")
    assert workshop.load("autoencoder")
    arguments = {"styled": 1, "seed": 0, "file": tmp_path / "latents.npy"}
    names = workshop.recipe.data.styles

    def encoded() -> torch.Tensor:
        return LatentCache.build(workshop.bundle, workshop.faces, names, **arguments).plain

    first = encoded()
    kept = arguments["file"].stat().st_mtime_ns
    assert workshop.load("decoder")
    assert torch.equal(encoded(), first)
    assert arguments["file"].stat().st_mtime_ns == kept
    with torch.no_grad():
        workshop.bundle.vae.encoder.conv_in.weight.mul_(1.5)
    assert not torch.equal(encoded(), first)


def test_a_recipe_without_a_recogniser_has_no_such_stage(recipe, tmp_path):
    workshop = without("recogniser", recipe, tmp_path)
    assert workshop.load("recogniser")
    assert workshop.bundle.recogniser is None


def test_the_bundle_personalizes(bundle_folder):
    bundle = load_bundle(bundle_folder, device="cpu")
    assert bundle.has_hypernetwork
    photo = torch.zeros(1, 32, 32, 3, dtype=torch.uint8)
    assert personalize(bundle, photo, PersonalizeOptions()).weights.metadata.bundle == "drawn"


def test_all_weights_are_fp16_safetensors(bundle_folder):
    suffixes = {file.suffix for file in bundle_folder.rglob("*") if file.is_file()}
    assert suffixes <= {".json", ".safetensors", ".txt", ".png"}
    hypernetwork = next(bundle_folder.glob("hypernetwork/*.safetensors"))
    assert hypernetwork.stat().st_size > 0


def test_an_unknown_key_of_a_recipe_is_named(recipe, tmp_path):
    file = tmp_path / "BUNDLE.toml"
    file.write_text(recipe.read_text().replace("[base]", "[base]\nspeed = 9"))
    with pytest.raises(BundleError, match="unknown key speed"):
        load_recipe(file)


def test_an_optimizer_that_there_is_none_of_is_named(recipe, tmp_path):
    file = tmp_path / "BUNDLE.toml"
    file.write_text(recipe.read_text().replace("steps = 2, batch = 8,", 'steps = 2, optimizer = "sgd", batch = 8,'))
    with pytest.raises(BundleError, match=r"(?s)BUNDLE.toml.classifier.optimization: .*'sgd'"):
        load_recipe(file)


def test_a_folder_that_is_no_pipeline_is_a_bundle_error(tmp_path):
    with pytest.raises(BundleError):
        load_bundle(tmp_path)
    with pytest.raises(BundleError, match="neither a folder nor a hub id"):
        load_bundle("./nowhere")


def test_a_hypernetwork_of_other_targets_is_refused(bundle_folder, tmp_path):
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(bundle_folder, copy)
    file = copy / "bundle.json"
    file.write_text(file.read_text().replace('"attention+geglu"', '"attention"'))
    with pytest.raises(BundleError, match="other targets"):
        load_bundle(copy)


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
