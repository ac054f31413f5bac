from dataclasses import replace

import numpy as np
import pytest

from core.errors import BundleError, SettingsError
from core.lab.evaluation.variations import DEGRADATIONS, degraded, varied
from core.lab.testing import random_bundle


def test_a_varied_setting_is_one_row_a_value(people):
    rows = varied("finetune.rank=2,3")
    assert [row.title for row in rows] == ["finetune.rank = 2", "finetune.rank = 3"]
    two, three = (row.run(random_bundle(), people(1), 0, None)[0] for row in rows)
    assert two.stored_bytes < three.stored_bytes
    assert two.bundle.config.finetune.rank == 2


def test_text_is_a_value_too(people):
    with pytest.raises(BundleError, match="'subject' or 'base'"):
        varied("sampling.unconditional=persn")[0].missing(random_bundle())
    (row,) = varied("sampling.unconditional=base")
    assert row.run(random_bundle(), people(1), 0, None)[0].bundle.config.sampling.unconditional == "base"


@pytest.mark.parametrize("setting", ["finetune.speed=1", "finetune=1", "nothing.at.all=1"])
def test_a_setting_that_is_not_there_is_named(people, setting):
    with pytest.raises(BundleError, match=setting.split("=")[0]):
        varied(setting)[0].run(random_bundle(), people(1), 0, None)


def test_what_a_hypernetwork_was_not_made_for_is_not_tried(people):
    for setting in ("lidb.seed=9", "lidb.a=9"):
        (row,) = varied(setting)
        assert "without one" in row.missing(random_bundle())
        assert row.missing(random_bundle(with_hypernetwork=False)) is None
    assert varied("finetune.rank=1")[0].missing(random_bundle()) is None


def test_a_variation_needs_values():
    with pytest.raises(SettingsError, match="KEY=VALUE"):
        varied("finetune.rank")


@pytest.mark.parametrize("name", DEGRADATIONS)
def test_a_worse_photo_has_the_size_of_the_photo_and_is_another(people, name):
    photo = (
        np.tile(np.arange(64, dtype=np.uint8)[:, None, None] * 3, (1, 64, 3)) + np.eye(64, dtype=np.uint8)[..., None]
    )
    worse = DEGRADATIONS[name](photo)
    assert (worse.shape, worse.dtype) == (photo.shape, photo.dtype)
    assert not np.array_equal(worse, photo)


def test_a_degraded_row_leaves_the_subject_as_it_was(people):
    chosen = [replace(people(1)[0], more=people(2)[1].photo[None])]
    before = chosen[0].photos.copy()
    assert len(degraded("dark").run(random_bundle(), chosen, 0, None)) == 1
    assert np.array_equal(chosen[0].photos, before)
