"""Which pictures the rows of a training batch show."""

from collections import Counter
from dataclasses import replace

import numpy as np
import torch

from core.lab.testing import random_bundle
from core.lab.training import rows as rows_module
from core.lab.training.data import Faces, LatentCache
from core.lab.training.loop import step_generator
from core.lab.training.rows import Mix, RowSource

WORDS = [("hat",), *[("smiling",)] * 49, *[()] * 50]
PHOTOS = Mix(photo=1.0, empty=0.0, personal=0.0, other_photo=0.0)


def drawn(words, balanced, rows=400, emphasis=None):
    """How often each of the pictures is drawn; a picture's latents are its number."""
    count = len(words)
    faces = Faces(np.zeros((count, 16, 16, 3), np.uint8), tuple(str(n) for n in range(count)), tuple(words))
    plain = torch.arange(count).view(count, 1, 1, 1, 1).expand(count, 2, 1, 1, 1)
    none = np.zeros((count, 0), int)
    latents = LatentCache(plain, plain[:, :0], none, none, ())
    source = RowSource(random_bundle(), faces, latents, PHOTOS, balanced=balanced, emphasis=emphasis)
    return Counter(source.draw(rows, step_generator(0, 0)).latents.flatten().int().tolist())


def test_of_a_balanced_share_of_the_rows_rare_words_have_nearly_as_many():
    counts = drawn(WORDS, balanced=0.5)
    assert 30 < counts[0] < 80  # 1 of 4.2 (1 + 49 ** 0.3) in this half of the rows, and one of a hundred of the others
    assert 190 < sum(counts[picture] for picture in range(1, 50)) < 310


def test_emphasised_words_have_as_many_times_more():
    usual = drawn(WORDS, balanced=1.0)[0]
    assert 1.5 < drawn(WORDS, balanced=1.0, emphasis={"hat": 3.0})[0] / usual < 3.0


def test_mirrored_rows_say_right_for_left(monkeypatch):
    texts = []

    def tokenize(bundle, captions):
        texts.extend(captions)
        return torch.zeros(len(captions), 1, dtype=torch.int64)

    monkeypatch.setattr(rows_module, "tokenize", tokenize)
    faces = Faces(np.zeros((1, 16, 16, 3), np.uint8), ("a person",), (("looking left",),))
    plain = torch.tensor([0.0, 1.0]).view(1, 2, 1, 1, 1)  # as it is, and mirrored
    none = np.zeros((1, 0), int)
    source = RowSource(random_bundle(), faces, LatentCache(plain, plain[:, :0], none, none, ()), PHOTOS, balanced=1.0)
    latents = [int(source.draw(1, step_generator(0, step)).latents) for step in range(40)]
    sides = {(latent, word) for latent, text in zip(latents, texts, strict=True) for word in text.split()}
    assert {(0, "left"), (1, "right")} <= sides
    assert not {(1, "left"), (0, "right")} & sides


def test_left_to_chance_a_rare_attribute_is_rare():
    assert drawn(WORDS, balanced=0.0)[0] < 12


def test_pictures_without_words_are_drawn_as_they_come():
    words = [()] * 10
    assert drawn(words, balanced=0.5) == drawn(words, balanced=0.0)


def test_a_person_is_seen_in_another_photo_where_there_is_one_and_as_numbers_that_are_blurred():
    faces = Faces(np.zeros((3, 16, 16, 3), np.uint8), ("a", "a", "b"), ((), (), ()))
    plain = torch.arange(3).view(3, 1, 1, 1, 1).expand(3, 2, 1, 1, 1)
    none = np.zeros((3, 0), int)
    embeddings = np.arange(3, dtype=np.float32).reshape(3, 1, 1).repeat(2, 1).repeat(4, 2)
    mix = Mix(photo=1.0, empty=0.0, personal=1.0, other_photo=1.0)
    latents = LatentCache(plain, plain[:, :0], none, none, ())
    drawn = RowSource(random_bundle(), faces, latents, mix, embeddings=embeddings).draw(60, step_generator(0, 0))
    latent_numbers = drawn.latents.flatten().int().tolist()
    assert set(zip(latent_numbers, drawn.faces[:, 0].int().tolist(), strict=True)) == {(0, 1), (1, 0), (2, 2)}
    blurred = RowSource(random_bundle(), faces, latents, replace(mix, blur=1.0), embeddings=embeddings)
    rows = blurred.draw(400, step_generator(0, 0))
    noise, itself = rows.faces - rows.faces.round(), rows.latents.flatten() == rows.faces[:, 0].round()
    assert 0.8 < float(noise[~itself].std() / rows_module.APART) < 1.2
    assert 1.6 < float(noise[itself].std() / rows_module.APART) < 2.4
