"""A face recognition network out of a file that says what is done, in order."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from core.lab.training.teacher import SIDE, TEACHER_LOSSES, FaceTeacher, face_embeddings

OPS = [
    ["con", "w0", "c0", 2, 0], ["affine", "g0", "b0"], ["relu"], ["max_pool", 3, 2, 0], ["tag", "1"],
    ["con", "w1", "c1", 2, 0], ["tag", "2"], ["skip", "1"], ["avg_pool", 2, 2, 0], ["add", "2"], ["relu"],
    ["avg_pool", 0, 1, 0], ["fc", "f"],
]  # fmt: skip


@pytest.fixture
def teacher(tmp_path):
    torch.manual_seed(0)
    tensors = {
        "mean": torch.tensor([122.0, 117.0, 104.0]), "w0": torch.randn(4, 3, 7, 7), "c0": torch.zeros(4),
        "g0": torch.ones(1, 4, 1, 1), "b0": torch.zeros(1, 4, 1, 1), "w1": torch.randn(6, 4, 3, 3),
        "c1": torch.zeros(6), "f": torch.eye(6, 5),
    }  # fmt: skip
    save_file(tensors, tmp_path / "network.safetensors", metadata={"ops": json.dumps(OPS)})
    return FaceTeacher(tmp_path / "network.safetensors")


def test_it_does_what_the_file_says(teacher):
    numbers, seen = teacher(torch.randn(2, 3, 128, 128))
    assert numbers.shape == (2, 5)
    assert [tuple(features.shape) for features in seen] == [(2, 6, 17, 17)]


def test_only_the_face_counts(teacher):
    picture = torch.zeros(1, 3, 128, 128)
    beside = picture.clone()
    beside[..., :16] = 1.0
    middle = picture.clone()
    middle[..., 60:70, 60:70] = 1.0
    numbers = teacher(picture)[0]
    assert torch.equal(numbers, teacher(beside)[0])
    assert not torch.equal(numbers, teacher(middle)[0])


def test_flat_pictures_become_the_networks_input(teacher):
    assert teacher._input(torch.ones(1, 3, 128, 128)).shape == (1, 3, SIDE, SIDE)
    assert torch.allclose(teacher._input(torch.ones(1, 3, 64, 64))[0, 0], torch.tensor((255 - 122) / 256))


def test_it_can_be_learnt_from(teacher):
    pixels = torch.randn(1, 3, 128, 128, requires_grad=True)
    teacher(pixels)[0].sum().backward()
    assert pixels.grad is not None
    assert pixels.grad.abs().sum() > 0


def test_what_is_the_same_loses_nothing(teacher):
    pictures = torch.rand(2, 3, 64, 64) * 2 - 1
    assert {name: loss.item() for name, loss in teacher.losses(pictures, pictures).items()} == dict.fromkeys(
        TEACHER_LOSSES, 0.0
    )
    assert all(loss > 0 for loss in teacher.losses(pictures.flip(3), pictures).values())


def test_embeddings_are_those_of_the_pictures_and_of_their_mirror_images(teacher):
    pictures = np.random.default_rng(0).integers(0, 256, (5, 128, 128, 3), np.uint8)
    known = face_embeddings(teacher, pictures, batch=2)
    assert known.shape == (5, 2, 5)
    mirrored = face_embeddings(teacher, pictures[:, :, ::-1])
    np.testing.assert_allclose(mirrored[:, 0], known[:, 1], atol=1e-4)


def test_what_a_convolution_takes_in_can_be_read(teacher):
    places = teacher.features(torch.randn(2, 3, 128, 128), "w1")
    assert places.shape == (2, 4, 35, 35)
    assert places.min() >= 0
