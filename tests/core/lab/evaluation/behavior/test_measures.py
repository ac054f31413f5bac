"""All numbers of one person, on pictures whose answer is known: the photo again, with the face that ships."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from core.lab.classifier import ClassifierConfig, PictureClassifier
from core.lab.evaluation.behavior.command import EMBEDDED
from core.lab.evaluation.behavior.identity import Recogniser
from core.lab.evaluation.behavior.measures import Instruments, measure
from core.lab.evaluation.behavior.rows import ROWS, Made, Plan
from core.lab.evaluation.subjects import Subject
from core.lab.testing import random_bundle


@pytest.fixture(scope="module")
def subject() -> Subject:
    with Image.open(Path(EMBEDDED) / "demo-face.png") as image:
        face = np.asarray(image.convert("RGB").resize((64, 64)))
    return Subject("ada", face, np.stack([face[:, ::-1], (face * [0.4, 0.8, 1.0]).astype(np.uint8)]))


@pytest.fixture
def instruments(mean_colour) -> Instruments:
    classifier = PictureClassifier(ClassifierConfig(("photo", "cartoon"), ("hat",), (8, 8))).eval()
    return Instruments([Recogniser("A", mean_colour, 0.5), Recogniser("B", mean_colour, 0.5)], classifier)


def test_a_copier_copies_does_not_vary_and_follows_no_word(instruments, subject):
    photo, words = subject.photo[None], ("hat", "smiling", "looking left", "on a blue background")
    copied = Made(np.repeat(photo, 3, axis=0), dict.fromkeys(words, photo))
    found = measure(instruments, subject, subject, copied)
    assert found["copy_paste/A"] == found["copy_paste/B"]
    assert {key: found[key] for key in ("ssim", "sim_ref/A", "found", "accepted_photo/A")} == pytest.approx(
        {"ssim": 1, "sim_ref/A": 1, "found": 1, "accepted_photo/A": 1}
    )
    for key in ("yaw", "pitch", "structure", "effect", "pose_loss", *[f"effect/{word}" for word in words]):
        assert found[key] == pytest.approx(0, abs=1e-6), key
    assert found["yaws"] == [found["photo"]["yaw"]] * 3
    assert found["pose_right"] == pytest.approx((found["asked/smiling"] + found["asked/looking left"]) / 2)


def test_seeds_that_turn_the_head_vary(instruments, subject):
    turned = Made(np.stack([subject.photo, subject.photo[:, ::-1]]))
    found = measure(instruments, subject, subject, turned)
    assert found["yaw"] > 0
    assert found["structure"] > 0.1
    assert "effect" not in found


def test_pictures_without_a_face_say_nothing_of_poses(instruments, subject):
    noise = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    found = measure(instruments, subject, subject, Made(noise, {"looking left": noise[:1]}))
    assert (found["found"], found["score"], found["yaws"], found["asked/looking left"]) == (0, 0, [None, None], 0)
    assert not {"yaw", "pitch"} & set(found)


def test_styles_are_measured_by_the_classifier_and_other_photos(instruments, subject):
    (drawn,) = ROWS["filter"].make(random_bundle(), [subject], 0)
    found = measure(instruments, subject, subject, drawn(Plan(styles=("cartoon", "mosaic")), 0))
    assert {"style_gt", "style_gt/cartoon", "style_gt/mosaic", "style_right", "style_right/cartoon"} <= set(found)
    assert "style_right/mosaic" not in found, "the classifier does not know it"
    unknown = measure(replace(instruments, classifier=None), subject, subject, drawn(Plan(styles=("cartoon",)), 0))
    assert "style_right" not in unknown


def test_other_photos_are_a_row(instruments, subject):
    (drawn,) = ROWS["other-photo"].make(random_bundle(), [subject], 0)
    made = drawn(Plan(pictures=4), 0)
    assert np.array_equal(made.plain, subject.others)
    assert measure(instruments, subject, subject, made)["accepted_photo/A"] <= 1
