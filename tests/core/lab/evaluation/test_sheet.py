import pytest
import torch
from PIL import Image

from core.errors import SettingsError
from core.hyperdreambooth.styles.styles import STYLES
from core.lab.evaluation.sheet import style_sheet
from core.lab.testing import random_bundle
from core.lab.training.data import Faces


def test_a_sheet_has_a_column_for_every_style_and_only_generated_faces(tmp_path):
    pictures = torch.randint(0, 256, (3, 16, 16, 3), dtype=torch.uint8).numpy()
    faces = Faces(pictures, ("omi-1", "person-1", "omi-2"), ((), (), ()))
    file = style_sheet(random_bundle(), faces, tmp_path, seed=0)
    with Image.open(file) as sheet:
        assert sheet.size == ((1 + len(STYLES)) * 32, 2 * 32 + 16)
    with pytest.raises(SettingsError, match="'omi'"):
        style_sheet(random_bundle(), Faces(pictures[:1], ("person-1",), ((),)), tmp_path, seed=0)
