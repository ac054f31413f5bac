"""Going on from a finished bundle."""

import shutil

import pytest
import torch

from core.errors import BundleError
from core.hyperdreambooth.model.loading import load_bundle
from core.lab.classifier import load_classifier
from core.lab.training import __main__ as program
from core.lab.training.export import export_bundle
from core.lab.training.recipe import load_recipe
from core.lab.training.stages import TrainingRun
from core.lab.training.start import start_from
from tests.core.lab.training.small_recipe import LINEAR_TRAINING, linear_recipe, trained_on


def test_a_finished_bundle_is_gone_on_from_and_only_its_hypernetwork_learns_who_it_is(
    recipe, bundle_folder, tmp_path, monkeypatch
):
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    _, run = trained_on(recipe.parent, linear_recipe(), first)
    export_bundle(run.bundle, first / "bundle")
    run.classifier.save(first / "bundle")
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
    _, run = trained_on(recipe.parent, linear_recipe(), tmp_path)
    export_bundle(run.bundle, tmp_path / "bundle")
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
    run = TrainingRun(load_recipe(file), device="cpu")
    assert run.load("hypernetwork")
    torch.testing.assert_close(
        run.network.state_dict(), load_bundle(bundle_folder, device="cpu").hypernetwork.state_dict()
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
