from __future__ import annotations

import numpy as np
import pytest

from worker import identities


def unit(*rows):
    vectors = np.array(rows, dtype=float)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_the_likeness_of_a_picture_is_the_mean_cosine_with_the_photos_over_the_recognisers():
    photos = {"bundle": unit([1, 0], [0, 1]), "other": unit([1, 1, 0])}
    pictures = {"bundle": unit([1, 0], [1, 1]), "other": unit([0, 0, 1], [1, 1, 0])}
    found = identities.likenesses(identities.to_bytes(photos), pictures)
    assert found == pytest.approx([0.25, (np.sqrt(0.5) + 1) / 2], abs=1e-3)


@pytest.mark.parametrize("pictures", [{}, {"new": unit([1, 0])}])
def test_a_recogniser_that_did_not_see_the_photos_says_nothing(pictures):
    identity = identities.to_bytes({"bundle": unit([1, 0])})
    assert set(identities.likenesses(identity, pictures)) <= {None}


def test_it_lies_beside_the_weights():
    assert identities.key_beside("acme/jobs/job_1/7/preview.lidb") == "acme/jobs/job_1/7/identity.json"
