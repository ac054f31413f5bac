"""The layers that read words off a photo."""

import numpy as np

from core.lab.training.photo_words import cut, ridge


def test_least_squares_find_a_linear_word():
    random = np.random.default_rng(0)
    features = random.normal(size=(2000, 6)) * [1, 2, 3, 4, 5, 6] + 1
    wanted = np.stack([0.5 * features[:, 2] - 1, features[:, 0]], axis=1)
    weight, bias = ridge(features, wanted)
    reached = features @ weight.T + bias
    assert all(np.corrcoef(reached[:, n], wanted[:, n])[0, 1] > 0.99 for n in range(2))


def test_a_threshold_is_as_low_as_nine_of_ten_right_allow():
    scores = np.arange(100, 0, -1.0)
    said = np.array([True] * 9 + [False] + [True] * 9 + [False] * 81)
    assert cut(scores, said) == 81.0
    assert cut(scores, np.zeros(100, bool)) is None
