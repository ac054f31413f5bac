"""Faces of nobody out of photos of people."""

import numpy as np

from core.lab.training.data import Faces
from core.lab.training.warp import warp

LINES = np.repeat(np.tile([0, 0, 0, 0, 255, 255, 255, 255], 16)[None, None, :, None], 128, axis=1)


def lines(count=3):
    """Upright stripes, 128 pixels wide."""
    return np.broadcast_to(LINES, (count, 128, 128, 3)).astype(np.uint8)


def test_every_copy_is_another_face_and_the_seed_decides_which():
    faces = warp(lines(), 64, seed=5)
    assert faces.shape == (3, 64, 64, 3)
    assert (faces == warp(lines(), 64, seed=5)).all()
    assert (faces != warp(lines(), 64, seed=6)).any()
    assert (faces[0] != faces[1]).any()


def test_what_is_on_it_is_moved_smoothly_and_stays_sharp():
    for face in warp(lines(), 128, seed=0).astype(float):
        grey = face.mean(-1) > face.mean()
        edges = np.abs(np.diff(grey.astype(int), axis=1)).sum(1)
        assert (abs(edges - 31) <= 6).all()  # there are 31 in the picture
        moved = (grey != (lines()[0, :, :, 0] > 0)).mean()
        assert 0.05 < moved < 0.95
        assert np.abs(np.diff(grey.astype(int), axis=0)).mean() < 0.1  # a line goes on where it was a row above
        assert face.std() > 90


def test_light_and_colour_change_a_little():
    grey = np.full((200, 16, 16, 3), 128, np.uint8)
    colours = warp(grey, 8, seed=0).astype(float).mean((1, 2))
    assert np.abs(colours.mean() - 128) < 4
    assert 5 < colours.mean(1).std() < 20
    assert 1 < (colours - colours.mean(1, keepdims=True)).std() < 8


def test_each_is_somebody_else_with_the_words_of_its_picture():
    faces = Faces(lines(2), ("a", "a"), (("man",), ("hat",)))
    nobody = faces.warped(2, 64, seed=0)
    assert nobody.attributes == (("man",), ("hat",)) * 2
    assert len(set(nobody.identities)) == 4
    assert (nobody.labels == -1).all()
    everybody = Faces(lines(2)[:, ::2, ::2], faces.identities, faces.attributes) + nobody
    assert everybody.labels.tolist() == [0, 0, -1, -1, -1, -1]
    assert everybody.pictures.shape == (6, 64, 64, 3)
