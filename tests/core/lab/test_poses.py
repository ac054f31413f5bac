"""Poses and smiles of the generated face that ships, and of its mirror image; noise is no face."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from core.lab.evaluation.behavior.command import EMBEDDED
from core.lab.poses import find_poses


def test_a_face_is_found_and_mirrored_and_noise_is_none():
    with Image.open(Path(EMBEDDED) / "demo-face.png") as image:
        face = np.asarray(image.convert("RGB").resize((128, 128)))
    noise = np.random.default_rng(0).integers(0, 256, face.shape, dtype=np.uint8)
    seen = find_poses(np.stack([face, face[:, ::-1], noise]))
    assert seen.found.tolist() == [True, True, False]
    assert seen.score[2] == 0
    assert seen.yaw[0] == pytest.approx(-seen.yaw[1], abs=8)
    assert seen.pitch[0] == pytest.approx(seen.pitch[1], abs=6)
    assert abs(seen.yaw[0]) < 60
    assert np.isnan([seen.yaw[2], seen.pitch[2], seen.smile[2]]).all()
