"""The real engine on a tiny random bundle; the method itself is tested where it lives."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from core.errors import BundleError, InvalidInput, JobCanceled, SettingsError, WeightsRefused
from core.settings import Settings
from tests.core.hyperdreambooth.faces.test_onnx_recogniser import tiny_model
from worker.engine import Engine, Part, Personalized, PersonalizeOptions, Row, load_engine

pytestmark = pytest.mark.slow
PHOTOS = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def bundle_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from core.lab.testing import TINY, random_pipeline

    folder = tmp_path_factory.mktemp("bundle")
    random_pipeline().save_pretrained(folder)
    (folder / "bundle.json").write_text(TINY.to_json())
    return folder


@pytest.fixture(scope="module")
def engine(bundle_folder: Path) -> Engine:
    return load_engine(Settings(bundle=str(bundle_folder), device="cpu"))


def personalized(engine: Engine, seed: int = 0, rank: int | None = None) -> Personalized:
    return engine.personalize(
        PHOTOS,
        PersonalizeOptions(rank=rank, seed=seed),
        on_progress=lambda *_: None,
        on_preview=lambda _: None,
        should_stop=lambda: False,
    )


def personalize(engine: Engine, seed: int = 0, rank: int | None = None) -> bytes:
    return personalized(engine, seed, rank).weights


def generate(engine: Engine, rows: list[Row], **options: object) -> np.ndarray:
    arguments = {"steps": 2, "height": None, "width": None, "should_stop": lambda: False, **options}
    return engine.generate(rows, on_progress=lambda *_: None, **arguments)  # type: ignore[arg-type]


def test_a_photo_becomes_weights_step_by_step(engine: Engine) -> None:
    steps: list[tuple[str, int, int]] = []
    made = engine.personalize(
        PHOTOS,
        PersonalizeOptions(steps=2),
        on_progress=lambda *step: steps.append(step),
        on_preview=lambda _: None,
        should_stop=lambda: False,
    )
    assert engine.name == "tiny-random"
    assert len(engine.fingerprint) == 16
    assert engine.layout.pins["fingerprint"] == engine.fingerprint
    assert ("finetune", 2, 2) in steps
    assert "finetune" in made.seconds


def test_without_a_recogniser_there_is_no_likeness(engine: Engine) -> None:
    made = personalized(engine)
    assert (made.likeness, made.likeness_by) == (None, {})


def test_the_operators_recognisers_measure_likeness(bundle_folder: Path, tmp_path: Path) -> None:
    files = tuple(tiny_model(tmp_path, name=name) for name in ("one", "two"))
    engine = load_engine(Settings(bundle=str(bundle_folder), device="cpu", recognisers=files))
    made = personalized(engine)
    assert set(made.likeness_by) == {"one", "two"}
    assert made.likeness == pytest.approx(made.likeness_by["one"])


def test_recognisers_that_cannot_be_told_apart_or_opened_are_refused(bundle_folder: Path, tmp_path: Path) -> None:
    file = tiny_model(tmp_path, name="bundle")
    for files, reason in (((file,), "names of their own"), ((tmp_path / "none.onnx",), "no recogniser")):
        with pytest.raises(SettingsError, match=reason):
            load_engine(Settings(bundle=str(bundle_folder), device="cpu", recognisers=files))


def test_more_photos_go_on_from_weights(engine: Engine) -> None:
    first = personalize(engine)

    def go_on(start: bytes) -> bytes:
        return engine.personalize(
            np.concatenate([PHOTOS, PHOTOS[:, ::-1]]),
            PersonalizeOptions(start=start),
            on_progress=lambda *_: None,
            on_preview=lambda _: None,
            should_stop=lambda: False,
        ).weights

    assert go_on(first) != first
    with pytest.raises(WeightsRefused):
        go_on(b"not weights")


def test_the_same_request_gives_the_same_bytes(engine: Engine) -> None:
    weights = personalize(engine)
    assert personalize(engine) == weights
    row = Row("a [V] face", "", weights, 1, None)
    assert np.array_equal(generate(engine, [row]), generate(engine, [row]))


def test_a_batch_mixes_people_whatever_their_rank(engine: Engine) -> None:
    rows = [
        Row("a [V] face", "", personalize(engine), 1, None),
        Row("a [V] face", "dark", personalize(engine, seed=1, rank=5), 1, 3.0),
    ]
    batched = generate(engine, rows)
    assert batched.shape == (2, 16, 16, 3)
    assert batched.dtype == np.uint8
    for row, picture in zip(rows, batched, strict=True):
        alone = generate(engine, [row])[0]
        assert np.abs(alone.astype(int) - picture.astype(int)).max() <= 1


def test_a_blend_lies_between_its_people(engine: Engine) -> None:
    weights = [personalize(engine, seed=seed, rank=2) for seed in (0, 1)]

    def row(*shares: float) -> Row:
        parts = tuple(Part(data, share) for data, share in zip(weights, shares, strict=True))
        return Row("a [V] face", "", parts, 1, None)

    one = Row("a [V] face", "", weights[0], 1, None)
    mixed, same, alone, other = generate(engine, [row(0.5, 0.5), row(0.5, 0.5), row(1.0, 0.0), row(0.0, 1.0)])
    assert np.array_equal(mixed, same)
    assert np.abs(alone.astype(int) - generate(engine, [one])[0].astype(int)).max() <= 2
    assert not np.array_equal(alone, other)


def test_what_does_not_fit_is_refused(engine: Engine) -> None:
    row = Row("a [V] face", "", personalize(engine), 1, None)
    with pytest.raises(InvalidInput):
        generate(engine, [row], height=17)
    with pytest.raises(WeightsRefused):
        generate(engine, [Row("a [V] face", "", b"not weights", 1, None)])
    with pytest.raises(WeightsRefused):
        generate(engine, [Row("a [V] face", "", (Part(personalize(engine), 0.5), Part(b"not weights", 0.5)), 1, None)])
    with pytest.raises(JobCanceled):
        generate(engine, [row], should_stop=lambda: True)


def test_a_bundle_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BundleError):
        load_engine(Settings(bundle=str(tmp_path / "nothing")))


@pytest.mark.parametrize("has_hypernetwork", [True, False])
def test_a_preview_drawn_in_between_changes_nothing(engine: Engine, has_hypernetwork: bool) -> None:
    from core.lab.testing import random_bundle

    seeing = copy.copy(engine)
    seeing._bundle = random_bundle(with_hypernetwork=has_hypernetwork)  # type: ignore[attr-defined]
    drawn: list[np.ndarray] = []
    steps: list[str] = []

    def draw(weights: bytes) -> None:
        row = Row("a [V] face", "", weights, 3, None)
        drawn.append(seeing.preview(row, on_progress=lambda stage, *_: steps.append(stage), should_stop=lambda: False))
        assert np.array_equal(drawn[-1], generate(seeing, [row], steps=10)[0])

    def made(on_preview: Callable[[bytes], None]) -> Personalized:
        return seeing.personalize(
            PHOTOS,
            PersonalizeOptions(seed=3),
            on_progress=lambda *_: None,
            on_preview=on_preview,
            should_stop=lambda: False,
        )

    with_it, without_it = made(draw), made(lambda _: None)
    assert (with_it.weights, with_it.preview) == (without_it.weights, without_it.preview)
    assert drawn[0].shape == (16, 16, 3)
    assert len(steps) > 10
    with pytest.raises(JobCanceled):
        seeing.preview(Row("a", "", with_it.weights, 0, None), on_progress=lambda *_: None, should_stop=lambda: True)
