"""Pictures in other colours."""

import numpy as np

from core.lab.training.loop import step_generator
from core.lab.training.recolour import recolour


def test_every_picture_changes_and_the_same_step_gives_the_same():
    pictures = np.random.default_rng(0).integers(0, 255, (12, 32, 32, 3), dtype=np.uint8)
    done = recolour(pictures, step_generator(0, 1))
    assert done.shape == pictures.shape
    assert done.dtype == np.uint8
    assert all((one != other).any() for one, other in zip(done, pictures, strict=True))
    assert (done == recolour(pictures, step_generator(0, 1))).all()
    assert (done != recolour(pictures, step_generator(0, 2))).any()


def test_grey_pictures_get_colours():
    grey = np.full((20, 16, 16, 3), 128, np.uint8)
    means = recolour(grey, step_generator(0, 0)).mean((1, 2))
    assert np.ptp(means, axis=1).mean() > 10
